import warnings

from dapr.clients.grpc._response import UnlockResponseStatus
from servers import Redis
from sidecar import Case, Sidecar, component

LOCKS = 'locks'


class Lock(Case):
    def setUp(self):
        # The SDK says in each call that the API is an alpha version.
        warnings.simplefilter('ignore', UserWarning)

    async def test_owners(self):
        with Redis() as redis:
            parts = [component(LOCKS, 'lock.redis', [redis.host])]
            with Sidecar(parts=parts) as sidecar:
                sidecar.ready()

                async def check(client, which):
                    async def take(owner, seconds=60):
                        return bool(await client.try_lock(LOCKS, which, owner, seconds))

                    async def give(owner):
                        return (await client.unlock(LOCKS, which, owner)).status

                    self.assertTrue(await take('ada'))
                    self.assertFalse(await take('bob'))
                    self.assertEqual(await give('bob'), UnlockResponseStatus.lock_belongs_to_others)
                    self.assertEqual(await give('ada'), UnlockResponseStatus.success)
                    self.assertEqual(await give('ada'), UnlockResponseStatus.lock_does_not_exist)
                    self.assertTrue(await take('bob'))
                    self.assertEqual(await give('bob'), UnlockResponseStatus.success)
                    await self.refused(
                        lambda: client.try_lock('nowhere', which, 'ada', 60), 'INVALID_ARGUMENT'
                    )

                await self.both(sidecar, check)

    async def test_expiry(self):
        with Redis() as redis:
            parts = [component(LOCKS, 'lock.redis', [redis.host])]
            with Sidecar(parts=parts) as sidecar:
                sidecar.ready().use()

                async def check(client, which):
                    self.assertTrue(await client.try_lock(LOCKS, which, 'ada', 1))
                    while not await client.try_lock(LOCKS, which, 'bob', 60):
                        pass

                await self.both(sidecar, check)
