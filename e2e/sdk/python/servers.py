"""Servers that sidecars need, each started for one test.

OUTRIDER_PLACEMENT and OUTRIDER_SCHEDULER name the binaries.
"""

import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request

from ports import TIMEOUT, free_port, listens, until


class Program:
    """A running program. Leaving its context ends it."""

    def __init__(self, name, arguments, env=None):
        self.name = name
        self._output = tempfile.TemporaryFile('w+', encoding='utf-8', errors='replace')
        self._process = subprocess.Popen(
            [str(argument) for argument in arguments],
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        )

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if kind is not None:
            self._output.seek(0)
            print(f'---- {self.name} ----\n{self._output.read()}')
        self._output.close()

    def ended(self):
        return self._process.poll() is not None

    def until(self, what, ask):
        """Asks again until there is a true answer, while the program runs."""

        def now():
            if self.ended():
                raise AssertionError(f'{self.name} ended before this was so: {what}')
            return ask()

        return until(what, now)


def is_healthy(port):
    try:
        url = f'http://127.0.0.1:{port}/healthz'
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            return answer.status == 200
    except (urllib.error.URLError, ConnectionError):
        return False


class Service(Program):
    """A service of the control plane."""

    def __init__(self, name, variable, flags):
        self.port, self._health, metrics = (free_port() for _ in range(3))
        arguments = [
            os.environ[variable],
            f'--port={self.port}',
            f'--healthz-port={self._health}',
            f'--metrics-port={metrics}',
            '--listen-address=127.0.0.1',
            '--healthz-listen-address=127.0.0.1',
            '--metrics-listen-address=127.0.0.1',
        ]
        super().__init__(name, [*arguments, *flags])
        self.address = f'127.0.0.1:{self.port}'

    def __enter__(self):
        self.until(f'{self.name} is healthy', lambda: is_healthy(self._health))
        return self


class Placement(Service):
    def __init__(self):
        cluster = f'--initial-cluster=dapr-placement-0=127.0.0.1:{free_port()}'
        super().__init__('placement', 'OUTRIDER_PLACEMENT', [cluster])
        self.flag = f'--placement-host-address={self.address}'


class Scheduler(Service):
    def __init__(self):
        self._folder = tempfile.TemporaryDirectory()
        peers = f'dapr-scheduler-server-0=http://127.0.0.1:{free_port()}'
        super().__init__(
            'scheduler',
            'OUTRIDER_SCHEDULER',
            [
                f'--etcd-data-dir={self._folder.name}',
                f'--etcd-client-port={free_port()}',
                f'--etcd-initial-cluster={peers}',
            ],
        )
        self.flag = f'--scheduler-host-address={self.address}'

    def __exit__(self, *why):
        super().__exit__(*why)
        self._folder.cleanup()


class Redis(Program):
    def __init__(self):
        self.port = free_port()
        self._folder = tempfile.TemporaryDirectory()
        arguments = ['--port', self.port, '--bind', '127.0.0.1', '--save', '']
        folder = ['--dir', pathlib.Path(self._folder.name)]
        super().__init__('redis', ['redis-server', *arguments, *folder])
        self.host = {'name': 'redisHost', 'value': f'127.0.0.1:{self.port}'}

    def __enter__(self):
        self.until('redis listens', lambda: listens(self.port))
        return self

    def __exit__(self, *why):
        super().__exit__(*why)
        self._folder.cleanup()

    def set(self, key, value):
        with socket.create_connection(('127.0.0.1', self.port), TIMEOUT) as connection:
            connection.sendall(f'SET {key} {value}\r\n'.encode())
            answer = connection.recv(64)
            if answer != b'+OK\r\n':
                raise AssertionError(f'redis answered {answer!r}')
