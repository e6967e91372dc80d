import asyncio
import queue

from ports import TIMEOUT
from servers import Redis
from sidecar import Case, Sidecar, component

SETTINGS = 'settings'


class Configuration(Case):
    async def test_reading_and_watching(self):
        with Redis() as redis:
            parts = [component(SETTINGS, 'configuration.redis', [redis.host])]
            with Sidecar(parts=parts) as sidecar:
                sidecar.ready()

                async def check(client, which):
                    colour, size = f'{which}-colour', f'{which}-size'
                    redis.set(colour, 'green||7')
                    redis.set(size, 'large')
                    got = (await client.get_configuration(SETTINGS, [colour, size])).items
                    self.assertEqual(set(got), {colour, size})
                    self.assertEqual((got[colour].value, got[colour].version), ('green', '7'))
                    self.assertEqual((got[size].value, got[size].version), ('large', ''))
                    self.assertEqual((await client.get_configuration(SETTINGS, ['no'])).items, {})

                    await self.refused(
                        lambda: client.get_configuration('nowhere', ['k']), 'INVALID_ARGUMENT'
                    )
                    if which == 'async':
                        # This client cannot read the answers to a subscription: it
                        # waits for them in a thread that has no event loop.
                        return

                    changes = queue.Queue()
                    watch = await client.subscribe_configuration(
                        SETTINGS, [colour], lambda watch, answer: changes.put((watch, answer.items))
                    )
                    redis.set(size, 'small')
                    redis.set(colour, 'red||8')
                    # The first answer may be the values at the beginning.
                    value = None
                    while value != ('red', '8'):
                        got = await asyncio.to_thread(changes.get, timeout=TIMEOUT)
                        self.assertEqual((got[0], set(got[1])), (watch, {colour}))
                        value = (got[1][colour].value, got[1][colour].version)
                    self.assertTrue(await client.unsubscribe_configuration(SETTINGS, watch))
                    self.assertFalse(await client.unsubscribe_configuration(SETTINGS, watch))

                await self.both(sidecar, check)
