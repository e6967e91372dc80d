"""A program that hosts the actor type "python": counters that other languages
know too. Its methods take and answer JSON:

Add     {"n"}: adds it to the total -> the total, which outlives the actor
Ask     {"type", "id", "n"}: adds n to a counter of any language -> its total
Watch   {"kind": "timer" or "reminder", "name"}: starts to fire ten times a second
Unwatch the same: stops that
Fired   -> how often each has fired, by kind:name, such as {"timer:a": 2}
Fail    -> an error

APP_PORT is where it listens, and what the SDK reads tells it where its sidecar
is. With the argument grpc it opens a stream to its sidecar instead of serving HTTP.
"""

import asyncio
import os
import sys
from datetime import timedelta

from dapr.actor import (
    Actor,
    ActorId,
    ActorInterface,
    ActorProxy,
    ActorRuntime,
    Remindable,
    actormethod,
)
from dapr.actor.runtime.config import ActorReentrancyConfig, ActorRuntimeConfig
from dapr.actor.runtime.grpc_host import ActorGrpcHost
from dapr.ext.flask import DaprActor
from flask import Flask

SOON = timedelta(0)
PERIOD = timedelta(milliseconds=100)


class Counting(ActorInterface):
    @actormethod(name='Add')
    async def add(self, more: dict) -> int: ...

    @actormethod(name='Ask')
    async def ask(self, call: dict) -> int: ...

    @actormethod(name='Watch')
    async def watch(self, alarm: dict) -> None: ...

    @actormethod(name='Unwatch')
    async def unwatch(self, alarm: dict) -> None: ...

    @actormethod(name='Fired')
    async def fired(self) -> dict: ...

    @actormethod(name='Fail')
    async def fail(self) -> None: ...


class python(Actor, Counting, Remindable):
    async def add(self, more: dict) -> int:
        _, total = await self._state_manager.try_get_state('total')
        total = (total or 0) + more['n']
        await self._state_manager.set_state('total', total)
        return total

    async def ask(self, call: dict) -> int:
        other = ActorProxy.create(call['type'], ActorId(call['id']), Counting)
        return await other.Add({'n': call['n']})

    async def watch(self, alarm: dict) -> None:
        if alarm['kind'] == 'timer':
            await self.register_timer(alarm['name'], self.ring, alarm['name'], SOON, PERIOD)
        else:
            state = alarm['name'].encode()
            await self.register_reminder(alarm['name'], state, SOON, PERIOD)

    async def unwatch(self, alarm: dict) -> None:
        if alarm['kind'] == 'timer':
            await self.unregister_timer(alarm['name'])
        else:
            await self.unregister_reminder(alarm['name'])

    async def ring(self, name: str) -> None:
        await self.count(f'timer:{name}')

    async def receive_reminder(self, name, state, due_time, period, ttl=None) -> None:
        assert state == name.encode(), state
        await self.count(f'reminder:{name}')

    async def count(self, alarm: str) -> None:
        fired = await self.fired()
        fired[alarm] = fired.get(alarm, 0) + 1
        await self._state_manager.set_state('fired', fired)

    async def fired(self) -> dict:
        _, fired = await self._state_manager.try_get_state('fired')
        return dict(fired or {})

    async def fail(self) -> None:
        raise ValueError('it went wrong')


async def stream():
    host = ActorGrpcHost()
    await host.register_actor(python)
    await host.start()
    await asyncio.Event().wait()


def serve():
    flask = Flask('counter')
    DaprActor(flask).register_actor(python)
    flask.run(host='127.0.0.1', port=int(os.environ['APP_PORT']))


if __name__ == '__main__':
    reentrancy = ActorReentrancyConfig(enabled=True)
    ActorRuntime.set_actor_config(ActorRuntimeConfig(reentrancy=reentrancy))
    if sys.argv[1:] == ['grpc']:
        asyncio.run(stream())
    else:
        serve()
