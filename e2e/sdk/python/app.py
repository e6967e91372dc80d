"""Applications made with the SDK's own servers, with their sidecars."""

import contextlib
import queue
import threading

from dapr.clients.grpc._response import TopicEventResponse
from dapr.ext.flask import DaprApp
from dapr.ext.grpc import (
    App,
    BindingRequest,
    InvokeMethodRequest,
    InvokeMethodResponse,
    JobEvent,
    SubscriptionMessage,
)
from flask import Flask, jsonify, request
from werkzeug.serving import make_server

from ports import free_port, listens, until
from sidecar import BROKER, Sidecar

# Names of an input binding, and of jobs, that the applications know.
TICK = 'tick'
JOBS = ('once', 'often', 'fails')


@contextlib.contextmanager
def http_app(flags=(), parts=()):
    events = queue.Queue()
    flask = Flask('app')
    dapr = DaprApp(flask)

    @flask.route('/echo', methods=['GET', 'POST', 'PUT'])
    def echo():
        return jsonify(
            method=request.method,
            query=request.query_string.decode(),
            type=request.content_type,
            header=request.headers.get('x-test'),
            body=request.get_data(as_text=True),
        )

    @flask.route('/fails', methods=['GET', 'POST'])
    def fails():
        return 'it went wrong', 418

    @dapr.subscribe(pubsub=BROKER, topic='orders', route='/orders')
    def orders():
        events.put(request.get_json(force=True))
        return jsonify(status='SUCCESS')

    @dapr.subscribe(pubsub=BROKER, topic='refused', route='/refused', dead_letter_topic='orders')
    def refused():
        return jsonify(status='DROP')

    @flask.route(f'/{TICK}', methods=['POST'])
    def tick():
        events.put(TICK)
        return jsonify(to=[])

    @flask.route('/job/<name>', methods=['POST'])
    def job(name):
        events.put((name, request.get_json(force=True)))
        return ('', 500) if name == 'fails' else ('', 200)

    port = free_port()
    server = make_server('127.0.0.1', port, flask, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with Sidecar(flags=[f'--app-port={port}', *flags], parts=parts) as sidecar:
            yield sidecar.ready(), events
    finally:
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def grpc_app(flags=(), parts=()):
    events = queue.Queue()
    app = App()

    @app.method('echo')
    def echo(call: InvokeMethodRequest):
        return InvokeMethodResponse(call.data, call.content_type)

    @app.method('fails')
    def fails(call: InvokeMethodRequest):
        raise ValueError('it went wrong')

    @app.subscribe(pubsub_name=BROKER, topic='orders')
    def orders(event: SubscriptionMessage):
        events.put(event)
        return TopicEventResponse('success')

    @app.binding(TICK)
    def tick(event: BindingRequest):
        events.put(TICK)

    def job(event: JobEvent):
        events.put((event.name, event.get_data_as_string()))
        if event.name == 'fails':
            raise ValueError('never')

    for name in JOBS:
        app.job_event(name)(job)

    port = free_port()
    thread = threading.Thread(target=app.run, args=(port, '127.0.0.1'))
    thread.start()
    try:
        until('the application listens', lambda: listens(port))
        flags = [f'--app-port={port}', '--app-protocol=grpc', *flags]
        with Sidecar(flags=flags, parts=parts) as sidecar:
            yield sidecar.ready(), events
    finally:
        app.stop()
        thread.join()
