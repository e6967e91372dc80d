import asyncio

from counter import Counting
from counters import PYTHON, counter
from dapr.actor import ActorId, ActorProxy
from dapr.clients import DaprClient
from dapr.clients.exceptions import DaprInternalError
from ports import TIMEOUT, unique
from servers import Placement, Scheduler
from sidecar import Case

TYPE = 'python'


def proxy(id):
    return ActorProxy.create(TYPE, ActorId(id), Counting)


async def until(what, ask):
    async with asyncio.timeout(TIMEOUT):
        while not await ask():
            await asyncio.sleep(0.02)


class Actors(Case):
    async def each(self, check):
        """Runs a check with an application that serves HTTP, and with one that
        opens a stream."""
        for protocol in ('http', 'grpc'):
            with (
                self.subTest(protocol=protocol),
                Placement() as placement,
                Scheduler() as scheduler,
                counter([*PYTHON, protocol], placement, scheduler, protocol=protocol) as sidecar,
            ):
                sidecar.use()
                ActorProxy._default_proxy_factory = None
                await self.hosted()
                await check(protocol)

    async def hosted(self):
        """Waits until the type has a place."""

        async def is_there():
            try:
                return await proxy(unique('first')).Add({'n': 1}) == 1
            except DaprInternalError:
                return False

        await until('the type is hosted', is_there)

    async def test_calls_and_state(self):
        async def check(protocol):
            id = unique('a')
            self.assertEqual([await proxy(id).Add({'n': n}) for n in (1, 2, 3)], [1, 3, 6])
            other = {'type': TYPE, 'id': unique('b'), 'n': 5}
            self.assertEqual(await proxy(id).Ask(other), 5)
            self.assertEqual(await proxy(id).Ask(other), 10)
            # One that asks itself gets in again.
            itself = {'type': TYPE, 'id': id, 'n': 0}
            self.assertEqual(await proxy(id).Ask(itself), 6)
            # Calls of one actor take turns, so that none is lost.
            totals = await asyncio.gather(*(proxy(id).Add({'n': 1}) for _ in range(20)))
            self.assertEqual(sorted(totals), list(range(7, 27)))
            try:
                # The error of a stream comes as an answer, which this client does
                # not tell from others.
                answer = await proxy(id).invoke_method('Fail')
                self.assertEqual(protocol, 'grpc')
            except DaprInternalError as error:
                answer = error.raw_response_bytes
            self.assertIn(b'it went wrong', answer)
            if protocol == 'http':
                # The sidecar looks for it for 5 s.
                with self.assertRaises(DaprInternalError):
                    await ActorProxy.create('nobody', ActorId('x')).invoke_method('Add', b'{}')

            def active():
                with DaprClient() as client:
                    return client.get_metadata().active_actors_count

            self.assertGreaterEqual((await asyncio.to_thread(active))[TYPE], 2)

        await self.each(check)

    async def test_timers_and_reminders(self):
        async def check(_):
            for kind in ('timer', 'reminder'):
                actor = proxy(unique(kind))

                async def fired(name):
                    return (await actor.Fired()).get(f'{kind}:{name}', 0)

                async def often(name, times):
                    return await fired(name) >= times

                await actor.Watch({'kind': kind, 'name': 'a'})
                await until('a fires', lambda: often('a', 2))
                await actor.Unwatch({'kind': kind, 'name': 'a'})
                stopped = await fired('a')
                await actor.Watch({'kind': kind, 'name': 'b'})
                await until('b fires', lambda: often('b', 4))
                # One may have been on its way.
                self.assertLessEqual(await fired('a'), stopped + 1)
                await actor.Unwatch({'kind': kind, 'name': 'b'})

        await self.each(check)
