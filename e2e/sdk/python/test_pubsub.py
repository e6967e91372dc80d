import asyncio
import json
import queue

from app import grpc_app, http_app
from dapr.aio.clients import DaprClient as AsyncClient
from dapr.clients import DaprClient
from dapr.clients.grpc._response import TopicEventResponse
from ports import TIMEOUT
from sidecar import BROKER, Case, Sidecar


class Publish(Case):
    async def test_to_an_http_application(self):
        with http_app() as (sidecar, events):

            async def check(client, which):
                await client.publish_event(
                    BROKER,
                    'orders',
                    '{"n":1}',
                    data_content_type='application/json',
                    publish_metadata={'cloudevent.id': which},
                )
                event = await asyncio.to_thread(events.get, timeout=TIMEOUT)
                self.assertEqual(event['id'], which)
                self.assertEqual(event['source'], sidecar.id)
                self.assertEqual(event['type'], 'com.dapr.event.sent')
                self.assertEqual(event['data'], {'n': 1})
                self.assertEqual((event['topic'], event['pubsubname']), ('orders', BROKER))
                await client.publish_event(BROKER, 'refused', 'x')
                event = await asyncio.to_thread(events.get, timeout=TIMEOUT)
                self.assertEqual((event['topic'], event['data']), ('refused', 'x'))

            await self.both(sidecar, check)

    async def test_to_a_grpc_application(self):
        with grpc_app() as (sidecar, events):

            async def check(client, _):
                done = await client.publish_events(
                    BROKER, 'orders', ['a', 'b', 'c'], data_content_type='text/plain'
                )
                self.assertEqual(list(done.failed_entries), [])
                got = [await asyncio.to_thread(events.get, timeout=TIMEOUT) for _ in 'abc']
                self.assertEqual(sorted(event.data() for event in got), ['a', 'b', 'c'])
                self.assertEqual(got[0].pubsub_name(), BROKER)

            await self.both(sidecar, check)

    async def test_errors(self):
        with Sidecar() as sidecar:
            sidecar.ready()

            async def check(client, _):
                await self.refused(
                    lambda: client.publish_event('nowhere', 't', 'x'),
                    'INVALID_ARGUMENT',
                    'DAPR_PUBSUB_NOT_FOUND',
                )
                await self.refused(
                    lambda: client.publish_events('nowhere', 't', ['x']), 'INVALID_ARGUMENT'
                )

            await self.both(sidecar, check)


class Stream(Case):
    async def test_pulling(self):
        with Sidecar() as sidecar:
            sidecar.ready()

            async def check(client, which):
                subscription = await client.subscribe(
                    BROKER, f'{which}-pulled', dead_letter_topic=f'{which}-dead'
                )
                letters = await client.subscribe(BROKER, f'{which}-dead')
                for text in ('good', 'bad'):
                    await client.publish_event(
                        BROKER,
                        f'{which}-pulled',
                        json.dumps({'word': text}),
                        data_content_type='application/json',
                    )
                    message = await subscription.next_message()
                    self.assertEqual(message.data(), {'word': text})
                    if text == 'good':
                        await subscription.respond_success(message)
                        continue
                    await subscription.respond_drop(message)
                    letter = await letters.next_message()
                    self.assertEqual(letter.id(), message.id())
                    await letters.respond_success(letter)
                await subscription.close()
                await letters.close()

            await self.both(sidecar, check)

    async def test_handlers(self):
        with Sidecar() as sidecar:
            sidecar.ready().use()
            events = queue.Queue()

            def handle(message):
                events.put(message)
                return TopicEventResponse('success')

            def blocking():
                with DaprClient() as client:
                    close = client.subscribe_with_handler(BROKER, 'handled', handle)
                    client.publish_event(BROKER, 'handled', 'x')
                    self.assertEqual(events.get(timeout=TIMEOUT).topic(), 'handled')
                    close()

            await asyncio.to_thread(blocking)

            async def handle_later(message):
                return handle(message)

            async with AsyncClient() as client:
                close = await client.subscribe_with_handler(BROKER, 'later', handle_later)
                await client.publish_event(BROKER, 'later', 'x')
                event = await asyncio.to_thread(events.get, timeout=TIMEOUT)
                self.assertEqual(event.topic(), 'later')
                await close()
