"""The chat client of dapr-agents holds conversations with a tool.

Run it with e2e/sdk/python, whose sidecars it starts, on PYTHONPATH.
"""

import contextlib
import http.server
import json
import threading
import unittest

from dapr_agents import DaprChatClient, tool
from sidecar import Sidecar, component

KEY = 'a-key'


@tool
def weather(city: str) -> str:
    """Tells the weather of a city."""
    return f'sunny in {city}'


class Model(http.server.BaseHTTPRequestHandler):
    """A double of the chat completions that OpenAI documents. It asks for the
    weather, and then says what the tool said."""

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers['content-length'])))
        self.server.requests.append((self.path, self.headers['authorization'], request))
        results = [m['content'] for m in request['messages'] if m['role'] == 'tool']
        message = {'role': 'assistant', 'content': f'It is {results[-1]}.' if results else None}
        if not results:
            function = {'name': 'weather', 'arguments': '{"city": "Oslo"}'}
            message['tool_calls'] = [{'id': 'call-1', 'type': 'function', 'function': function}]
        choice = {
            'index': 0,
            'message': message,
            'finish_reason': 'stop' if results else 'tool_calls',
        }
        answer = {
            'id': 'chat-1',
            'object': 'chat.completion',
            'created': 1,
            'model': request['model'],
            'choices': [choice],
            'usage': {'prompt_tokens': 5, 'completion_tokens': 2, 'total_tokens': 7},
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header('content-type', 'application/json')
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def model():
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Model)
    server.requests = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Agents(unittest.TestCase):
    def client(self, part):
        sidecar = self.enterContext(Sidecar(parts=[part]))
        sidecar.ready().use()
        return DaprChatClient()

    def test_echo(self):
        client = self.client(component('parrot', 'conversation.echo'))
        history = [
            {'role': 'system', 'content': 'be brief'},
            {'role': 'user', 'content': 'what is the weather?'},
        ]
        # Echo calls the tool with the names of its arguments. That is no JSON, so
        # the client keeps the text alone.
        with self.assertLogs(level='ERROR') as logged:
            message = client.generate(messages=history, tools=[weather]).get_message()
        self.assertIn('what is the weather?', message.content)
        self.assertIn("'arguments': 'city'", logged.records[0].getMessage())

        # The conversation goes on with a call and what the tool said. Echo calls
        # once more what was called.
        function = {'name': weather.name, 'arguments': '{"city": "Oslo"}'}
        called = {'id': 'call-1', 'type': 'function', 'function': function}
        history += [
            {'role': 'assistant', 'content': '', 'tool_calls': [called]},
            {
                'role': 'tool',
                'tool_call_id': 'call-1',
                'name': weather.name,
                'content': weather.run(city='Oslo'),
            },
        ]
        message = client.generate(messages=history).get_message()
        self.assertIn('sunny in Oslo', message.content)
        (call,) = message.tool_calls
        self.assertEqual(call.function.name, weather.name)
        self.assertEqual(json.loads(call.function.arguments), {'city': 'Oslo'})

    def test_openai(self):
        with model() as server:
            metadata = {
                'key': KEY,
                'model': 'tiny',
                'endpoint': f'http://127.0.0.1:{server.server_port}/v1',
            }
            fields = [{'name': name, 'value': value} for name, value in metadata.items()]
            client = self.client(component('openai', 'conversation.openai', fields))
            history = [{'role': 'user', 'content': 'what is the weather in Oslo?'}]
            response = client.generate(messages=history, tools=[weather])
            message = response.get_message()
            (call,) = message.tool_calls
            self.assertEqual((call.id, call.function.name), ('call-1', weather.name))
            self.assertEqual(response.metadata['usage']['total_tokens'], 7)
            said = weather.run(**json.loads(call.function.arguments))
            history += [
                {'role': 'assistant', 'content': '', 'tool_calls': [call.model_dump()]},
                {'role': 'tool', 'tool_call_id': call.id, 'name': weather.name, 'content': said},
            ]
            response = client.generate(messages=history, tools=[weather])
            self.assertEqual(response.get_message().content, 'It is sunny in Oslo.')
            self.assertEqual(response.results[0].finish_reason, 'stop')

            for path, key, request in server.requests:
                self.assertEqual((path, key), ('/v1/chat/completions', f'Bearer {KEY}'))
                self.assertEqual(request['model'], 'tiny')
                (offered,) = request['tools']
                self.assertEqual(offered['function']['name'], weather.name)
                self.assertIn('city', offered['function']['parameters']['properties'])
            last = server.requests[-1][2]['messages']
            self.assertEqual([m['role'] for m in last], ['user', 'assistant', 'tool'])
            self.assertEqual(last[2]['tool_call_id'], 'call-1')
