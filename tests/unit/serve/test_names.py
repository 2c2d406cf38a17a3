"""No name of a request, a record or a command leads out of the store."""

from __future__ import annotations

import http.client
import shutil
from pathlib import Path

import grpc
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from components.common.deployments import Deployment, known_deployment, write_deployment
from components.common.errors import InputError
from components.serve.tensors import infer_request, rest_body
from components.version.version import Version
from tests.serving import post, stub_of

NAMES = ["../registry/CURRENT", "a/b", "..", "a\x00", "a\n", "s3://other/x", "file:///etc/passwd", "A"]


@pytest.mark.parametrize("name", ["", *NAMES])
def test_names_that_would_leave_the_store_are_refused(published, fresh_store, name):
    """What becomes a path is checked where it does, whoever it came from."""
    with pytest.raises(InputError, match="small letters, digits and hyphens only"):
        known_deployment(fresh_store, name)
    with pytest.raises(InputError, match="small letters, digits and hyphens only"):
        write_deployment(fresh_store, name, Deployment(current=published.old))
    for digest in (name, f"../versions/{published.old}", published.old + "/", published.old + "\n"):
        with pytest.raises(InputError, match="is no digest .64 hexadecimal digits"):
            Version.published(fresh_store, digest)


def test_servers_know_names_and_take_no_path_from_a_request(published, servers):
    """A whole version lies beside the store: no name that a request can have reaches it."""
    beside = Path(published.store.root).parent / "beside"
    shutil.copytree(published.store.version(published.old), beside, dirs_exist_ok=True)
    names = [*NAMES, str(beside), "../../../beside", f"../versions/{published.old}", "tables", "x" * 70_000]
    for name in names:
        for number, server in enumerate(servers):
            stub, text = stub_of(server), name.replace("\x00", "\\0")
            for call, request in (
                (stub.RepositoryModelLoad, pb.RepositoryModelLoadRequest(model_name=name)),
                (stub.ModelMetadata, pb.ModelMetadataRequest(name=name, version=name)),
                (stub.ModelReady, pb.ModelReadyRequest(name=name, version=name)),
            ):
                try:
                    answer = call(request, timeout=10)
                    # The embedding tier has one model, and describes it whatever it is called.
                    assert not getattr(answer, "ready", False) and "isLoaded" not in str(answer), text
                except grpc.RpcError as error:
                    assert error.code() == grpc.StatusCode.NOT_FOUND, (text, error)
            tensors = published.tensors[0] if number else {"categorical": published.ids(1)}
            with pytest.raises(grpc.RpcError) as refusal:
                stub.ModelInfer(infer_request("ranker" if number else "tables", name, tensors), timeout=10)
            assert refusal.value.code().name == ("NOT_FOUND" if number else "FAILED_PRECONDITION")
            assert len(refusal.value.details()) < 2000
    connection = http.client.HTTPConnection("localhost", servers[1].http_port, timeout=20)
    for name in names[:-1]:
        body = rest_body(published.tensors[0]) | {"parameters": {"version": name}}
        assert post(connection, body)[0] == 404
        for path in ("repository/models/{}/load", "models/{}/infer"):
            quoted = "".join(f"%{byte:02x}" for byte in name.encode())
            assert post(connection, body, f"/v2/{path.format(quoted)}")[0] in (404, 405, 501), name
