import asyncio

from app import http_app
from dapr.clients.grpc._request import TransactionalStateOperation
from ports import TIMEOUT
from sidecar import BROKER, Case, component

STORE = 'outboxed'


class Outbox(Case):
    async def test_transactions_publish(self):
        fields = {'outboxPublishPubsub': BROKER, 'outboxPublishTopic': 'orders'}
        metadata = [{'name': name, 'value': value} for name, value in fields.items()]
        parts = [component(STORE, 'state.in-memory', metadata)]
        with http_app(parts=parts) as (sidecar, events):

            async def check(client, which):
                operation = TransactionalStateOperation(key=which, data='"one"')
                await client.execute_state_transaction(STORE, [operation])
                event = await asyncio.to_thread(events.get, timeout=TIMEOUT)
                self.assertEqual((event['topic'], event['source']), ('orders', sidecar.id))
                self.assertIn('one', str(event['data']))
                self.assertEqual((await client.get_state(STORE, which)).data, b'"one"')

            await self.both(sidecar, check)
