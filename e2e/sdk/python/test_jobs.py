import asyncio
import json

from app import grpc_app, http_app
from dapr.clients.grpc._jobs import ConstantFailurePolicy, DropFailurePolicy, Job
from google.protobuf.any_pb2 import Any
from ports import TIMEOUT
from servers import Scheduler
from sidecar import Case


def data(text):
    return Any(value=text.encode())


class Jobs(Case):
    async def run_jobs(self, app):
        with Scheduler() as scheduler, app(flags=[scheduler.flag]) as (sidecar, events):

            async def fired():
                name, body = await asyncio.to_thread(events.get, timeout=TIMEOUT)
                return name, body

            async def check(client, which):
                await client.schedule_job(Job('once', due_time='0s', data=data(f'"{which}"')))
                name, body = await fired()
                self.assertEqual(name, 'once')
                self.assertIn(which, json.dumps(body))
                # It is gone when it has fired.
                await self.gone(client, 'once')

                often = Job('often', schedule='@every 100ms', repeats=3, data=data('1'))
                await client.schedule_job(often)
                self.assertEqual([(await fired())[0] for _ in range(3)], ['often'] * 3)
                await self.gone(client, 'often')

            await self.both(sidecar, check)

    async def gone(self, client, name):
        while True:
            try:
                await client.get_job(name)
            except Exception as error:
                self.assertEqual(error.code().name, 'INTERNAL')
                self.assertIn('job not found', error.details())
                return

    async def test_http_application(self):
        await self.run_jobs(http_app)

    async def test_grpc_application(self):
        await self.run_jobs(grpc_app)

    async def test_keeping(self):
        with Scheduler() as scheduler, http_app(flags=[scheduler.flag]) as (sidecar, _):

            async def check(client, which):
                policy = ConstantFailurePolicy(max_retries=2, interval_seconds=7)
                job = Job(
                    which,
                    schedule='@yearly',
                    repeats=4,
                    ttl='20000h',
                    data=data('{"n":1}'),
                    failure_policy=policy,
                )
                await client.schedule_job(job)
                got = await client.get_job(which)
                self.assertEqual((got.name, got.schedule, got.repeats), (which, '@yearly', 4))
                self.assertEqual(got.data.value, b'{"n":1}')
                self.assertTrue(got.ttl)
                self.assertEqual(got.failure_policy.max_retries, 2)
                self.assertEqual(got.failure_policy.interval_seconds, 7)

                # A second of the same name has to say that it takes its place.
                second = Job(which, schedule='@monthly', failure_policy=DropFailurePolicy())
                await self.refused(lambda: client.schedule_job(second), 'ALREADY_EXISTS')
                await client.schedule_job(second, overwrite=True)
                got = await client.get_job(which)
                self.assertEqual(got.schedule, '@monthly')
                self.assertIsInstance(got.failure_policy, DropFailurePolicy)

                await client.delete_job(which)
                await self.refused(lambda: client.get_job(which), 'INTERNAL')
                nonsense = Job(which, schedule='now and then')
                await self.refused(lambda: client.schedule_job(nonsense), 'INTERNAL')

            await self.both(sidecar, check)

    async def test_a_job_that_fails_is_tried_again(self):
        with Scheduler() as scheduler, http_app(flags=[scheduler.flag]) as (sidecar, events):

            async def check(client, _):
                policy = ConstantFailurePolicy(max_retries=2, interval_seconds=0)
                job = Job('fails', due_time='0s', data=data('1'), failure_policy=policy)
                await client.schedule_job(job)
                for _ in range(3):
                    self.assertEqual(
                        (await asyncio.to_thread(events.get, timeout=TIMEOUT))[0], 'fails'
                    )
                await self.gone(client, 'fails')
                self.assertTrue(events.empty())

            await self.both(sidecar, check)
