"""Applications made with the SDK's own servers, with their sidecars."""

import contextlib
import queue
import threading

from dapr.clients.grpc._response import TopicEventResponse
from dapr.ext.flask import DaprApp
from dapr.ext.grpc import App, InvokeMethodRequest, InvokeMethodResponse, SubscriptionMessage
from flask import Flask, jsonify, request
from werkzeug.serving import make_server

from sidecar import BROKER, Sidecar, free_port, listens, until


@contextlib.contextmanager
def http_app():
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

    port = free_port()
    server = make_server('127.0.0.1', port, flask, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with Sidecar(flags=[f'--app-port={port}']) as sidecar:
            yield sidecar.ready(), events
    finally:
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def grpc_app():
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

    port = free_port()
    thread = threading.Thread(target=app.run, args=(port, '127.0.0.1'))
    thread.start()
    try:
        until('the application listens', lambda: listens(port))
        flags = [f'--app-port={port}', '--app-protocol=grpc']
        with Sidecar(flags=flags) as sidecar:
            yield sidecar.ready(), events
    finally:
        app.stop()
        thread.join()
