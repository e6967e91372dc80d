"""Runs a real daprd for the tests of the unmodified Python SDK.

OUTRIDER_DAPRD names the binary, ours or any other. Sidecars find each other
through a database of each test; OUTRIDER_NAMES=mdns is for binaries that do
not know this.
"""

import asyncio
import inspect
import itertools
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

from dapr.aio.clients import DaprClient as AsyncClient
from dapr.clients import DaprClient
from dapr.clients.exceptions import DaprInternalError
from dapr.conf import settings

# Seconds that anything may take on a busy machine.
TIMEOUT = 30
STORE = 'store'
BROKER = 'broker'
SECRETS = 'secrets'

_turns = itertools.count()


def unique(name):
    return f'{name}-{os.getpid()}-{next(_turns)}'


def free_port():
    """A free port, different in every call. All are below what the
    kernel gives to outgoing connections."""
    while True:
        port = 10_000 + (os.getpid() % 200 * 100 + next(_turns)) % 20_000
        with socket.socket() as probe:
            try:
                probe.bind(('127.0.0.1', port))
                return port
            except OSError:
                continue


def until(what, ask):
    """Asks again until there is a true answer."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.02)
    raise AssertionError(f'not so after {TIMEOUT} s: {what}')


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(('127.0.0.1', port)) == 0


def component(name, kind, metadata=()):
    return {
        'apiVersion': 'dapr.io/v1alpha1',
        'kind': 'Component',
        'metadata': {'name': name},
        'spec': {'type': kind, 'version': 'v1', 'metadata': list(metadata)},
    }


class Sidecar:
    """A running daprd. Leaving its context ends it."""

    def __init__(self, names=None, flags=()):
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
            component(STORE, 'state.in-memory'),
            component(BROKER, 'pubsub.in-memory'),
            component(SECRETS, 'secretstores.local.file', [file]),
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
        self._output = open(folder / 'output', 'w+', encoding='utf-8', errors='replace')
        self._process = subprocess.Popen(
            [*arguments, *flags], stdout=self._output, stderr=subprocess.STDOUT
        )

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if kind is not None:
            self._output.seek(0)
            print(f'---- {self.id} ----\n{self._output.read()}')
        self._output.close()
        self._folder.cleanup()

    def is_healthy(self):
        try:
            url = f'http://127.0.0.1:{self.http_port}/v1.0/healthz'
            with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
                return answer.status == 204
        except (urllib.error.URLError, ConnectionError):
            return False

    def ready(self):
        until(f'{self.id} is healthy', self.is_healthy)
        return self

    def use(self, invocation='http'):
        """The SDK reads addresses from its settings."""
        settings.DAPR_HTTP_PORT = self.http_port
        settings.DAPR_GRPC_PORT = self.grpc_port
        settings.DAPR_API_METHOD_INVOCATION_PROTOCOL = invocation

    def ended(self):
        return self._process.poll() is not None


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
