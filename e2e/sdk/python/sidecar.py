"""Runs a real daprd for the tests of the unmodified Python SDK.

OUTRIDER_DAPRD names the binary, ours or any other. Sidecars find each other
through a database of each test; OUTRIDER_NAMES=mdns is for binaries that do
not know this.
"""

import asyncio
import inspect
import json
import os
import pathlib
import tempfile
import unittest
import urllib.error
import urllib.request

from dapr.aio.clients import DaprClient as AsyncClient
from dapr.clients import DaprClient
from dapr.clients.exceptions import DaprInternalError
from dapr.conf import settings

from ports import TIMEOUT, free_port, unique, until
from servers import Program

STORE = 'store'
BROKER = 'broker'
SECRETS = 'secrets'


def component(name, kind, metadata=()):
    return {
        'apiVersion': 'dapr.io/v1alpha1',
        'kind': 'Component',
        'metadata': {'name': name},
        'spec': {'type': kind, 'version': 'v1', 'metadata': list(metadata)},
    }


class Sidecar(Program):
    """A running daprd. Leaving its context ends it. `parts` are components
    besides those that all have."""

    def __init__(self, names=None, flags=(), parts=()):
        self._folder = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self._folder.name)
        self.id = unique('app')
        self.names = names or folder
        self.http_port, self.grpc_port, internal, metrics = (free_port() for _ in range(4))
        resources = folder / 'resources'
        resources.mkdir()
        secrets = folder / 'secrets.json'
        secrets.write_text('{"password": "s3cret", "user": {"name": "ada"}}')
        file = {'name': 'secretsFile', 'value': str(secrets)}
        parts = [
            component(STORE, 'state.in-memory', [{'name': 'actorStateStore', 'value': 'true'}]),
            component(BROKER, 'pubsub.in-memory'),
            component(SECRETS, 'secretstores.local.file', [file]),
            *parts,
        ]
        (resources / 'all.yaml').write_text('\n---\n'.join(map(json.dumps, parts)))
        arguments = [
            os.environ['OUTRIDER_DAPRD'],
            f'--app-id={self.id}',
            f'--dapr-http-port={self.http_port}',
            f'--dapr-grpc-port={self.grpc_port}',
            f'--dapr-internal-grpc-port={internal}',
            f'--metrics-port={metrics}',
            f'--resources-path={resources}',
            '--dapr-listen-addresses=127.0.0.1',
            '--dapr-internal-grpc-listen-address=127.0.0.1',
            '--metrics-listen-address=127.0.0.1',
        ]
        if os.environ.get('OUTRIDER_NAMES') != 'mdns':
            resolution = {
                'component': 'sqlite',
                'version': 'v1',
                'configuration': {'connectionString': str(self.names / 'names.db')},
            }
            config = {
                'apiVersion': 'dapr.io/v1alpha1',
                'kind': 'Configuration',
                'metadata': {'name': 'config'},
                'spec': {'nameResolution': resolution},
            }
            (folder / 'config.yaml').write_text(json.dumps(config))
            arguments.append(f'--config={folder / "config.yaml"}')
        super().__init__(self.id, [*arguments, *flags])

    def __exit__(self, *why):
        super().__exit__(*why)
        self._folder.cleanup()

    def is_healthy(self):
        try:
            url = f'http://127.0.0.1:{self.http_port}/v1.0/healthz'
            with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
                return answer.status == 204
        except (urllib.error.URLError, ConnectionError):
            return False

    def ready(self):
        self.until(f'{self.id} is healthy', self.is_healthy)
        return self

    def use(self, invocation='http'):
        """The SDK reads addresses from its settings."""
        settings.DAPR_HTTP_PORT = self.http_port
        settings.DAPR_GRPC_PORT = self.grpc_port
        settings.DAPR_API_METHOD_INVOCATION_PROTOCOL = invocation


class Awaitable:
    """The synchronous client with methods to await, so that one test is for
    both clients."""

    def __init__(self, client):
        self._client = client

    def __getattr__(self, name):
        method = getattr(self._client, name)

        async def call(*args, **kwargs):
            result = await asyncio.to_thread(method, *args, **kwargs)
            return Awaitable(result) if name == 'subscribe' else result

        return call


class Case(unittest.IsolatedAsyncioTestCase):
    async def both(self, sidecar, check, invocation='http'):
        """Runs a check with the synchronous client, then with the other."""
        sidecar.use(invocation)
        with self.subTest(client='sync'):
            client = await asyncio.to_thread(DaprClient)
            try:
                await asyncio.wait_for(check(Awaitable(client), 'sync'), TIMEOUT)
            finally:
                client.close()
        with self.subTest(client='async'):
            async with AsyncClient() as client:
                await asyncio.wait_for(check(client, 'async'), TIMEOUT)

    async def refused(self, call, code, reason=None):
        """Checks the code of an error, and the reason in its details."""
        with self.assertRaises(Exception) as caught:
            result = call()
            if inspect.isawaitable(result):
                await result
        error = caught.exception
        if isinstance(error, DaprInternalError):
            # Some methods of the asynchronous client keep nothing but the text.
            self.assertEqual(error.__cause__.code().name, code, str(error))
            return error
        self.assertEqual(error.code().name, code, str(error))
        if reason:
            self.assertEqual(error.error_code(), reason)
            self.assertEqual(error.status_details().error_info['domain'], 'dapr.io')
        return error
