import asyncio
import pathlib
import tempfile

from app import TICK, grpc_app, http_app
from ports import TIMEOUT
from sidecar import Case, Sidecar, component

FILES = 'files'


class Bindings(Case):
    async def test_output(self):
        with tempfile.TemporaryDirectory() as folder:
            root = {'name': 'rootPath', 'value': folder}
            parts = [component(FILES, 'bindings.localstorage', [root])]
            with Sidecar(parts=parts) as sidecar:
                sidecar.ready()

                async def check(client, which):
                    name = {'fileName': f'{which}.txt'}
                    await client.invoke_binding(FILES, 'create', 'hello', name)
                    self.assertEqual(pathlib.Path(folder, f'{which}.txt').read_text(), 'hello')
                    answer = await client.invoke_binding(FILES, 'get', '', name)
                    self.assertEqual(answer.text(), 'hello')
                    listed = await client.invoke_binding(FILES, 'list', '')
                    self.assertEqual([f'{which}.txt' in entry for entry in listed.json()], [True])
                    await client.invoke_binding(FILES, 'delete', '', name)
                    self.assertFalse(pathlib.Path(folder, f'{which}.txt').exists())
                    await self.refused(
                        lambda: client.invoke_binding(FILES, 'paint', ''), 'INTERNAL'
                    )
                    await self.refused(
                        lambda: client.invoke_binding('nowhere', 'get', ''), 'INTERNAL'
                    )

                await self.both(sidecar, check)

    async def test_input(self):
        parts = [component(TICK, 'bindings.cron', [{'name': 'schedule', 'value': '@every 100ms'}])]
        for app in (http_app, grpc_app):
            with self.subTest(app=app.__name__), app(parts=parts) as (_, events):
                for _ in range(2):
                    event = await asyncio.to_thread(events.get, timeout=TIMEOUT)
                    self.assertEqual(event, TICK)
