from dapr.clients.grpc._request import TransactionalStateOperation, TransactionOperationType
from dapr.clients.grpc._state import Concurrency, Consistency, StateItem, StateOptions
from sidecar import STORE, Case, Sidecar

FIRST_WRITE = StateOptions(Consistency.strong, Concurrency.first_write)


class State(Case):
    @classmethod
    def setUpClass(cls):
        cls.sidecar = cls.enterClassContext(Sidecar()).ready()

    async def test_one_key(self):
        async def check(client, which):
            key = f'{which}-one'
            absent = await client.get_state(STORE, key)
            self.assertEqual((absent.data, absent.etag), (b'', ''))
            await client.save_state(
                STORE, key, '{"n":1}', state_metadata={'contentType': 'application/json'}
            )
            got = await client.get_state(STORE, key)
            self.assertEqual(got.data, b'{"n":1}')
            self.assertTrue(got.etag)

            await client.save_state(STORE, key, '2', etag=got.etag, options=FIRST_WRITE)
            await self.refused(
                lambda: client.save_state(STORE, key, '3', etag=got.etag, options=FIRST_WRITE),
                'ABORTED',
            )
            await self.refused(
                lambda: client.delete_state(STORE, key, etag=got.etag, options=FIRST_WRITE),
                'ABORTED',
            )
            await client.delete_state(STORE, key)
            self.assertEqual((await client.get_state(STORE, key)).data, b'')

        await self.both(self.sidecar, check)

    async def test_many_keys(self):
        async def check(client, which):
            a, b, c = (f'{which}-{name}' for name in 'abc')
            await client.save_bulk_state(STORE, [StateItem(a, '1'), StateItem(b, '2')])
            got = await client.get_bulk_state(STORE, [a, b, c], parallelism=2)
            rows = {row.key: (row.data, row.error) for row in got.items}
            self.assertEqual(rows, {a: (b'1', ''), b: (b'2', ''), c: (b'', '')})

        await self.both(self.sidecar, check)

    async def test_transactions(self):
        async def check(client, which):
            old, new, other = (f'{which}-{name}' for name in ('old', 'new', 'other'))
            await client.save_state(STORE, old, '1')
            delete = TransactionOperationType.delete
            await client.execute_state_transaction(
                STORE,
                [
                    TransactionalStateOperation(new, '2'),
                    TransactionalStateOperation(old, operation_type=delete),
                ],
            )
            self.assertEqual((await client.get_state(STORE, new)).data, b'2')
            self.assertEqual((await client.get_state(STORE, old)).data, b'')
            # One stale etag, and nothing happens.
            with self.assertRaises(Exception):
                await client.execute_state_transaction(
                    STORE,
                    [
                        TransactionalStateOperation(other, '3'),
                        TransactionalStateOperation(new, etag='12345', operation_type=delete),
                    ],
                )
            self.assertEqual((await client.get_state(STORE, new)).data, b'2')
            self.assertEqual((await client.get_state(STORE, other)).data, b'')

        await self.both(self.sidecar, check)

    async def test_errors(self):
        async def check(client, which):
            await self.refused(
                lambda: client.get_state('nowhere', 'k'), 'INVALID_ARGUMENT', 'DAPR_STATE_NOT_FOUND'
            )
            await self.refused(
                lambda: client.save_state('nowhere', 'k', '1'),
                'INVALID_ARGUMENT',
                'DAPR_STATE_NOT_FOUND',
            )
            error = await self.refused(
                lambda: client.save_state(STORE, 'a||b', '1'),
                'INVALID_ARGUMENT',
                'DAPR_STATE_ILLEGAL_KEY',
            )
            if which == 'sync':
                details = error.status_details()
                self.assertEqual(details.resource_info['resource_type'], 'state')
                self.assertEqual(details.bad_request['field_violations'][0]['field'], 'a||b')
            await self.refused(
                lambda: client.query_state(STORE, '{}'),
                'INTERNAL',
                'DAPR_STATE_QUERYING_NOT_SUPPORTED',
            )

        await self.both(self.sidecar, check)
