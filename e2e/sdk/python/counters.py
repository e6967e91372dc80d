"""Programs that host counters, in any language, with their sidecars."""

import contextlib
import pathlib
import sys

from ports import free_port, listens
from servers import Program
from sidecar import Sidecar

PYTHON = [sys.executable, str(pathlib.Path(__file__).with_name('counter.py'))]


@contextlib.contextmanager
def counter(command, placement, scheduler, names=None, protocol='http'):
    """An application and its sidecar, which knows where its actors are."""
    port = free_port()
    flags = [f'--app-port={port}', f'--app-protocol={protocol}', placement.flag, scheduler.flag]
    with Sidecar(names=names, flags=flags) as sidecar:
        env = {
            'APP_PORT': str(port),
            'DAPR_HTTP_PORT': str(sidecar.http_port),
            'DAPR_GRPC_PORT': str(sidecar.grpc_port),
            'DAPR_HTTP_ENDPOINT': f'http://127.0.0.1:{sidecar.http_port}',
            'DAPR_GRPC_ENDPOINT': f'http://127.0.0.1:{sidecar.grpc_port}',
            'PYTHONUNBUFFERED': '1',
        }
        with Program(' '.join(command), command, env) as program:
            program.until('the application listens', lambda: listens(port))
            sidecar.ready()
            yield sidecar
