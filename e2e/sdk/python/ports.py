"""Free ports, names that no other test has, and waiting."""

import itertools
import os
import socket
import time

# Seconds that anything may take on a busy machine.
TIMEOUT = 30

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
