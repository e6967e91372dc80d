"""A client and an application in C++, on Debian's gRPC: see e2e/sdk/cpp.

OUTRIDER_CPP is the folder that they are built in.
"""

import os
import pathlib
import subprocess
import unittest

from app import TICK
from ports import TIMEOUT, free_port, listens
from servers import Program, Scheduler
from sidecar import Sidecar, component

FOLDER = os.environ.get('OUTRIDER_CPP')


@unittest.skipUnless(FOLDER, 'OUTRIDER_CPP is not set')
class Cpp(unittest.TestCase):
    def test_client_and_application(self):
        port = free_port()
        cron = component(TICK, 'bindings.cron', [{'name': 'schedule', 'value': '@every 100ms'}])
        folder = pathlib.Path(FOLDER)
        with Scheduler() as scheduler, Program('app', [folder / 'app', port]) as app:
            app.until('the application listens', lambda: listens(port))
            flags = [f'--app-port={port}', '--app-protocol=grpc', scheduler.flag]
            with Sidecar(flags=flags, parts=[cron]) as sidecar:
                sidecar.ready()
                client = subprocess.run(
                    [folder / 'client', str(sidecar.grpc_port), sidecar.id],
                    capture_output=True,
                    text=True,
                    timeout=4 * TIMEOUT,
                )
                self.assertEqual(client.returncode, 0, client.stderr)
