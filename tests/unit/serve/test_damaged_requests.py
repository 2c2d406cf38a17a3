"""Servers live through what is no request, or only looks like one."""

from __future__ import annotations

import random
import time
from collections import Counter

import grpc
import numpy as np
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from components.serve.tensors import infer_request
from tests.serving import stub_of


def damage_bytes(content, draw):
    damaged = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(damaged) + 1)
        damaged[at : at + draw.choice((0, 1, 1, 1, 9))] = draw.randbytes(draw.choice((0, 1, 1, 1, 5)))
    return bytes(damaged)


def damage_tensors(good, draw):
    """A message whose description of a tensor, or whose contents, are not what they were."""
    message = pb.ModelInferRequest.FromString(good)
    number = draw.randrange(len(message.inputs))
    tensor = message.inputs[number]
    kind = draw.randrange(9)
    if kind == 0:
        tensor.shape[:] = [draw.choice((-1, 0, 1, 2**40, -(2**62), 7)) for _ in range(draw.randrange(4))]
    elif kind == 1:
        tensor.datatype = draw.choice(("", "INT7", "BYTES", "FP32", "BOOL", "INT64", "UINT8", "FP16", "STRING"))
    elif kind == 2:
        message.raw_input_contents[number] = damage_bytes(message.raw_input_contents[number] + b"0", draw)
    elif kind == 3:
        del message.raw_input_contents[number]
    elif kind == 4:
        tensor.name = draw.choice(("", "x" * 50_000, message.inputs[0].name, "actions.item_id"))
    elif kind == 5:
        message.model_version = draw.choice(("", "x" * 5000, "0" * 64, "\x00"))
    elif kind == 6:
        tensor.shape[:] = [draw.choice((0, 2**31, 2**62))] * draw.choice((2, 65, 3000))
    elif kind == 7:
        message.inputs.append(tensor)
        message.raw_input_contents.append(message.raw_input_contents[number])
    else:
        tensor.contents.int64_contents.append(4)
    return message.SerializeToString()


@pytest.mark.parametrize("damage", [damage_bytes, damage_tensors])
@pytest.mark.parametrize("which", [0, 1])
def test_servers_live_through_damaged_requests(published, servers, client, which, damage):
    """A status and a message for each, and the next good request is answered."""
    draw, codes = random.Random(5), Counter()
    if which:
        good = infer_request("ranker", "", published.tensors[3])
    else:
        good = infer_request("tables", published.old, {"categorical": published.ids(3)})
    content = good.SerializeToString()
    with grpc.insecure_channel(servers[which].address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for _ in range(400):
            try:
                call(damage(content, draw), timeout=10)
                codes["OK"] += 1
            except grpc.RpcError as error:
                # What is no message of the protocol is refused by gRPC itself, in words of its own.
                text = error.details() or ""
                unreadable = "deserializ" in text.lower() or "DecodeError" in text
                codes["UNREADABLE" if unreadable else error.code().name] += 1
                assert text, error
    allowed = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"}
    assert set(codes) <= (allowed | {"UNREADABLE"} if damage is damage_bytes else allowed), codes
    assert codes["INVALID_ARGUMENT"] > 10, codes
    assert client.rank(published.requests[0]).version == published.old


def test_contents_that_no_shape_asks_for_are_not_decoded(published, servers, client):
    """Millions of empty texts under a shape of one: refused at once, and others do not wait."""
    message = infer_request("ranker", "", {"actions.action_type": np.array([b"x", None], dtype=object)[:1]})
    message.raw_input_contents[0] = bytes(12_000_000)
    slow = stub_of(servers[1]).ModelInfer.future(message, timeout=20)
    started = time.monotonic()
    client.rank(published.requests[0])
    assert time.monotonic() - started < 1.0
    assert slow.code() == grpc.StatusCode.INVALID_ARGUMENT and "2 values, its shape [1] says 1" in slow.details()
