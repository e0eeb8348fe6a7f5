"""A gRPC caller of a foreign make (grpcio). Arguments: port, authority, CA, certificate, key.

Makes one call of each kind through the gateway and prints what it saw as JSON, a line each.
"""
import json
import sys

import grpc

port, authority, ca, certificate, key = sys.argv[1:]


def read(path):
    with open(path, "rb") as file:
        return file.read()


credentials = grpc.ssl_channel_credentials(read(ca), read(key), read(certificate))
options = (("grpc.ssl_target_name_override", authority), ("grpc.default_authority", authority))
channel = grpc.secure_channel("127.0.0.1:" + port, credentials, options)


def show(name, **seen):
    print(json.dumps({"call": name, **seen}), flush=True)


def attempt(name, call):
    """A call that may fail: its status is what is shown."""
    try:
        show(name, code=0, answer=call())
    except grpc.RpcError as error:
        show(name, code=error.code().value[0], details=error.details())


def unary(method):
    return channel.unary_unary("/city.Cameras/" + method)


answer, call = unary("Submit").with_call(b"snapshot", timeout=10)
show("Submit", answer=answer.decode(), told=dict(call.trailing_metadata()).get("x-told-by"))
show("Watch", answers=[event.decode() for event in channel.unary_stream("/city.Cameras/Watch")(b"3", timeout=10)])
pieces = [b"x" * 40000] * 5
show("Gather", answer=channel.stream_unary("/city.Cameras/Gather")(iter(pieces), timeout=10).decode())
talk = channel.stream_stream("/city.Cameras/Talk")
show("Talk", answers=[answer.decode() for answer in talk(iter([b"one", b"two"]), timeout=10)])
for code in (5, 14):
    attempt("Fail %d" % code, lambda: unary("Fail")(b"%d" % code, timeout=10).decode())
attempt("Wait", lambda: unary("Wait")(b"", timeout=0.3).decode())
attempt("Unknown", lambda: unary("Nothing")(b"", timeout=10).decode())
attempt("Forbidden", lambda: unary("Secret")(b"", timeout=10).decode())
cancelled = unary("Wait").future(b"", timeout=10)
cancelled.cancel()
show("Cancelled", cancelled=cancelled.cancelled())
