import asyncio

from dapr.aio.clients.health import DaprHealth as AsyncHealth
from dapr.clients import DaprClient
from dapr.clients.health import DaprHealth
from dapr.conf import settings
from ports import TIMEOUT, free_port, until
from sidecar import SECRETS, STORE, Case, Sidecar


class Platform(Case):
    async def test_secrets(self):
        with Sidecar() as sidecar:
            sidecar.ready()

            async def check(client, _):
                one = await client.get_secret(SECRETS, 'password')
                self.assertEqual(one.secret, {'password': 's3cret'})
                every = (await client.get_bulk_secret(SECRETS)).secrets
                self.assertEqual(every['password'], {'password': 's3cret'})
                self.assertEqual(every['user:name'], {'user:name': 'ada'})
                await self.refused(lambda: client.get_secret(SECRETS, 'absent'), 'INTERNAL')
                await self.refused(lambda: client.get_secret('nowhere', 'k'), 'INVALID_ARGUMENT')

            await self.both(sidecar, check)

    async def test_metadata(self):
        with Sidecar() as sidecar:
            sidecar.ready()

            async def check(client, which):
                await client.set_metadata(which, 'green')
                metadata = await client.get_metadata()
                self.assertEqual(metadata.application_id, sidecar.id)
                self.assertEqual(metadata.extended_metadata[which], 'green')
                kinds = {c.name: c.type for c in metadata.registered_components}
                self.assertEqual(kinds[STORE], 'state.in-memory')

            await self.both(sidecar, check)

    async def test_waiting_and_shutdown(self):
        settings.DAPR_HEALTH_TIMEOUT = TIMEOUT
        with Sidecar() as sidecar:
            sidecar.use()
            await asyncio.to_thread(DaprHealth.wait_for_sidecar)
            await AsyncHealth.wait_for_sidecar()

            def stop():
                with DaprClient() as client:
                    client.shutdown()
                until('the sidecar ended', sidecar.ended)

            await asyncio.to_thread(stop)

    async def test_waiting_for_nobody(self):
        settings.DAPR_HTTP_PORT = free_port()
        settings.DAPR_HEALTH_TIMEOUT = 1
        with self.assertRaises(TimeoutError):
            await asyncio.to_thread(DaprHealth.wait_for_sidecar)
        settings.DAPR_HEALTH_TIMEOUT = TIMEOUT
