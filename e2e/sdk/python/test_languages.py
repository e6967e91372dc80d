"""Actors of all languages, which call each other through one placement.

OUTRIDER_COUNTER_<LANGUAGE> is the command that starts the counters of a
language, a list in JSON, as xtask builds them. Python's are always there.
"""

import contextlib
import json
import os
import pathlib
import tempfile
import unittest
import urllib.error
import urllib.request

from counters import PYTHON, counter
from ports import TIMEOUT, unique, until
from servers import Placement, Scheduler

PREFIX = 'OUTRIDER_COUNTER_'
COMMANDS = {'python': PYTHON} | {
    name.removeprefix(PREFIX).lower(): json.loads(command)
    for name, command in os.environ.items()
    if name.startswith(PREFIX)
}


def call(sidecar, kind, id, method, data=None):
    """Calls an actor as a client without an SDK does."""
    request = urllib.request.Request(
        f'http://127.0.0.1:{sidecar.http_port}/v1.0/actors/{kind}/{id}/method/{method}',
        json.dumps(data).encode() if data else b'',
        {'content-type': 'application/json'},
        method='PUT',
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        text = answer.read()
        return json.loads(text) if text else None


class Languages(unittest.TestCase):
    def setUp(self):
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        placement = stack.enter_context(Placement())
        scheduler = stack.enter_context(Scheduler())
        names = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.sidecars = {
            language: stack.enter_context(counter(command, placement, scheduler, names))
            for language, command in COMMANDS.items()
        }
        for caller in self.sidecars.values():
            for language in self.sidecars:
                until(f'counters of {language} are hosted', lambda: self.hosted(caller, language))

    def hosted(self, caller, language):
        try:
            return call(caller, language, unique('first'), 'Add', {'n': 1}) == 1
        except urllib.error.HTTPError:
            return False

    def test_actors_call_actors_of_other_languages(self):
        for asker, sidecar in self.sidecars.items():
            for asked in self.sidecars:
                with self.subTest(asker=asker, asked=asked):
                    other = {'type': asked, 'id': unique(f'{asker}-asks'), 'n': 5}
                    asking = unique('asks')
                    for total in (5, 10):
                        self.assertEqual(call(sidecar, asker, asking, 'Ask', other), total)
                    # Any sidecar finds what was stored.
                    total = call(self.sidecars['python'], asked, other['id'], 'Add', {'n': 1})
                    self.assertEqual(total, 11)

    def test_timers_and_reminders_of_all_languages(self):
        python = self.sidecars['python']
        for language in self.sidecars:
            for kind in ('timer', 'reminder'):
                with self.subTest(language=language, kind=kind):
                    id = unique(kind)
                    alarm = {'kind': kind, 'name': 'a'}

                    def fired():
                        return call(python, language, id, 'Fired').get(f'{kind}:a', 0)

                    # Through a sidecar that does not host it.
                    call(python, language, id, 'Watch', alarm)
                    until('it fires', lambda: fired() >= 2)
                    call(python, language, id, 'Unwatch', alarm)
