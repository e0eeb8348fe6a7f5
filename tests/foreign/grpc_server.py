"""A gRPC subsystem of a foreign make (grpcio): echoes, streams, fails and waits as its method's name says.

Prints the port it listens on, then one line per call: method and the department the gateway named.
"""
import sys
import threading
from concurrent import futures

import grpc

CODES = {code.value[0]: code for code in grpc.StatusCode}


def note(context, method):
    told = dict(context.invocation_metadata())
    print(method, told.get("x-tallygate-department", "-"), flush=True)
    context.set_trailing_metadata((("x-told-by", "cameras"),))


def submit(request, context):
    note(context, "Submit")
    return b"got " + request


def fail(request, context):
    note(context, "Fail")
    context.abort(CODES[int(request)], "as told: 100 %")


def wait(request, context):
    note(context, "Wait")
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait(20)
    return b"late"


def watch(request, context):
    note(context, "Watch")
    for number in range(int(request)):
        yield b"event %d" % number


def gather(requests, context):
    note(context, "Gather")
    return b"%d" % sum(len(request) for request in requests)


def talk(requests, context):
    note(context, "Talk")
    for request in requests:
        yield b"heard " + request


HANDLERS = {
    "Submit": grpc.unary_unary_rpc_method_handler(submit),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Wait": grpc.unary_unary_rpc_method_handler(wait),
    "Watch": grpc.unary_stream_rpc_method_handler(watch),
    "Gather": grpc.stream_unary_rpc_method_handler(gather),
    "Talk": grpc.stream_stream_rpc_method_handler(talk),
}

server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("city.Cameras", HANDLERS),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
sys.stdin.read()  # ends with whoever started it
server.stop(None)
