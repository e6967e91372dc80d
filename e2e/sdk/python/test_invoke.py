import json

from app import grpc_app, http_app
from dapr.clients.exceptions import DaprInternalError
from ports import unique
from sidecar import Case, Sidecar


class Invoke(Case):
    async def test_http_to_http(self):
        with http_app() as (callee, _), Sidecar(names=callee.names) as caller:
            caller.ready()

            async def check(client, _):
                answer = await client.invoke_method(
                    callee.id, 'echo', http_verb='GET', http_querystring=(('a', '1'),)
                )
                self.assertEqual(answer.status_code, 200)
                got = json.loads(answer.text())
                self.assertEqual((got['method'], got['query']), ('GET', 'a=1'))

                answer = await client.invoke_method(
                    callee.id,
                    'echo',
                    b'hello',
                    content_type='text/plain',
                    http_verb='POST',
                    metadata=(('x-test', 'yes'),),
                )
                got = json.loads(answer.text())
                self.assertEqual((got['method'], got['body']), ('POST', 'hello'))
                self.assertEqual((got['type'], got['header']), ('text/plain', 'yes'))

                # The application's own errors arrive as they are.
                with self.assertRaises(DaprInternalError) as caught:
                    await client.invoke_method(callee.id, 'fails', http_verb='GET')
                self.assertEqual(caught.exception.status_code, 418)
                self.assertEqual(caught.exception.raw_response_bytes, b'it went wrong')
                with self.assertRaises(DaprInternalError) as caught:
                    await client.invoke_method(callee.id, 'no-such-method', http_verb='GET')
                self.assertEqual(caught.exception.status_code, 404)

                with self.assertRaises(DaprInternalError) as caught:
                    await client.invoke_method(unique('nobody'), 'echo', http_verb='GET')
                self.assertEqual(caught.exception.status_code, 500)
                self.assertEqual(caught.exception.error_code, 'ERR_DIRECT_INVOKE')

            await self.both(caller, check)

    async def test_grpc_to_http(self):
        with http_app() as (callee, _):

            async def check(client, _):
                answer = await client.invoke_method(
                    callee.id, 'echo', b'hello', content_type='text/plain', http_verb='PUT'
                )
                got = json.loads(answer.text())
                self.assertEqual((got['method'], got['body']), ('PUT', 'hello'))
                self.assertEqual(answer.content_type, 'application/json')
                await self.refused(
                    lambda: client.invoke_method(callee.id, 'no-such-method', b'', http_verb='GET'),
                    'NOT_FOUND',
                )
                await self.refused(
                    lambda: client.invoke_method(unique('nobody'), 'echo', b'', http_verb='GET'),
                    'INTERNAL',
                )

            await self.both(callee, check, 'grpc')

    async def test_grpc_to_grpc(self):
        with grpc_app() as (callee, _):

            async def check(client, _):
                answer = await client.invoke_method(
                    callee.id, 'echo', b'hello', content_type='text/plain'
                )
                self.assertEqual(answer.text(), 'hello')
                self.assertEqual(answer.content_type, 'text/plain')
                await self.refused(
                    lambda: client.invoke_method(callee.id, 'fails', b''), 'UNKNOWN'
                )
                await self.refused(
                    lambda: client.invoke_method(callee.id, 'no-such-method', b''),
                    'UNIMPLEMENTED',
                )

            await self.both(callee, check, 'grpc')
