"""Calls the server of examples/tonic_server.rs with gRPC's own library.

The messages have one field, so they are encoded here by hand instead of by generated code.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc


def encode(text):
    data = text.encode()
    assert len(data) < 128, "longer texts need a longer length"
    return bytes([10, len(data)]) + data if data else b""


def decode(data):
    assert data[0] == 10 and data[1] == len(data) - 2, data
    return data[2:].decode()


def fails(code, call):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, error
    else:
        raise AssertionError(f"no {code}")


with grpc.insecure_channel(sys.argv[1]) as channel:
    greet = channel.unary_unary("/plainsong.Greeter/Greet", encode, decode)
    count = channel.unary_stream("/plainsong.Greeter/Count", encode, decode)
    nothing = channel.unary_unary("/plainsong.Greeter/Nothing", encode, decode)

    with ThreadPoolExecutor(20) as pool:
        names = [f"client {number}" for number in range(1000)]
        answers = pool.map(lambda name: greet(name, timeout=60), names)
        assert list(answers) == [f"hello, {name}" for name in names]
    assert list(count("10000", timeout=60)) == [str(number) for number in range(10000)]
    fails(grpc.StatusCode.INVALID_ARGUMENT, lambda: greet("", timeout=60))
    fails(grpc.StatusCode.INVALID_ARGUMENT, lambda: list(count("many", timeout=60)))
    fails(grpc.StatusCode.UNIMPLEMENTED, lambda: nothing("", timeout=60))

    # A call that the client gives up, and one that is over its deadline.
    numbers = count(str(2**60))
    assert next(numbers) == "0"
    numbers.cancel()
    fails(grpc.StatusCode.CANCELLED, lambda: list(numbers))
    fails(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: list(count(str(2**60), timeout=0.1)))
    assert greet("you", timeout=60) == "hello, you"

print("all calls answered")
