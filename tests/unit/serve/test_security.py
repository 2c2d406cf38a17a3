"""Real servers of both tiers with certificates, which expire and are replaced while they serve, and a control token."""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.request
from dataclasses import dataclass, replace
from datetime import timedelta

import grpc
import numpy as np
import pytest
from cryptography import x509
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc

from components.common.deployments import known_deployment
from components.common.errors import InputError
from components.serve.client import RankerClient, ServerError
from components.serve.credentials import ClientCredentials
from components.serve.rollout import Rollout, RolloutPlan
from components.serve.tensors import rest_body
from tests.certificates import Authority, Secret
from tests.serving import Server, post, wait_until

NAME = "secured"
TOKEN, NEXT_TOKEN = b"first-token-" + b"a" * 20, b"next-token-" + b"b" * 20
REFUSED = (ssl.SSLError, ConnectionError, http.client.HTTPException)


@dataclass
class Secured:
    """Both tiers, each with a secret of its own, and a client's."""

    authority: Authority
    servers: tuple[Server, Server]
    secrets: tuple[Secret, Secret]
    client: Secret
    health_port: int
    while_expired: list[str]

    @property
    def shown(self) -> ClientCredentials:
        return self.client.credentials()

    def metric(self, which: int, name: str, setting: str) -> float:
        port = self.health_port if which else self.servers[0].http_port
        with urllib.request.urlopen(f"http://localhost:{port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return float(next(line for line in lines if line.startswith(f'{name}{{setting="{setting}"}}')).split()[-1])

    def rest(self, **files: str) -> http.client.HTTPSConnection:
        shown = replace(self.shown, **files)
        context = ssl.create_default_context(cafile=shown.ca)
        if shown.certificate:
            context.load_cert_chain(shown.certificate, shown.key)
        return http.client.HTTPSConnection("localhost", self.servers[1].http_port, timeout=20, context=context)


def shown_by(port: int, shown: ClientCredentials) -> x509.Certificate | None:
    """The certificate of a port, whatever it is worth; None if nobody listens."""
    context = ssl._create_unverified_context()
    context.load_cert_chain(shown.certificate, shown.key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with socket.create_connection(("localhost", port), timeout=5) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as connection:
                return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True))
    except ConnectionRefusedError:
        return None


def why_refused(server: Server, shown: ClientCredentials) -> str:
    with shown.channel(server.address) as channel:
        with pytest.raises(grpc.RpcError) as error:
            pb_grpc.GRPCInferenceServiceStub(channel).ServerLive(pb.ServerLiveRequest(), timeout=5)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    return str(error.value.details())


@pytest.fixture(scope="module")
def secured(published, tmp_path_factory):
    """Started with certificates that have expired, which are replaced while they serve."""
    folder, authority = tmp_path_factory.mktemp("secrets"), Authority("ours")
    secrets = []
    for name in ("embedding", "ranker", "client"):
        certificate, key = authority.issue(timedelta(days=1 if name == "client" else -0.1))
        files = {"tls_crt": certificate, "tls_key": key, "ca_crt": authority.pem, "token": TOKEN}
        secrets.append(Secret(folder / name, **files))
    options = [
        (*secret.server_options(), "--tls-client-ca", secret.path("ca.crt"), *control)
        for secret in secrets[:2]
        for control in [("--control-token", secret.path("token"), "--deployment", NAME)]
    ]
    root, shown = published.store.root, secrets[2].credentials()
    with Server("embedding", root, *options[0], credentials=shown) as embedding:
        health_port = Server("ranker", root).http_port
        asked = ("--embedding-address", embedding.address, "--embedding-ca", secrets[1].path("ca.crt"))
        asked += ("--set", f"health_port={health_port}")
        with Server("ranker", root, *options[1], *asked, credentials=shown) as ranker:
            made = Secured(authority, (embedding, ranker), tuple(secrets[:2]), secrets[2], health_port, [])
            for server in made.servers:
                wait_until(lambda server=server: shown_by(server.grpc_port, shown), server)
                made.while_expired.append(why_refused(server, shown))
            with pytest.raises(ssl.SSLError) as error:
                made.rest().request("GET", "/v2")
            made.while_expired.append(str(error.value))
            for secret in secrets[:2]:
                secret.put_pair(authority.issue())
            embedding.wait_ready()
            ranker.wait_ready()
            yield made


def test_expired_certificates_are_refused_until_replaced_while_serving(published, secured):
    assert len(secured.while_expired) == 3
    assert all("expired" in reason or "CERTIFICATE_VERIFY_FAILED" in reason for reason in secured.while_expired)
    with RankerClient(secured.servers[1].address, connection=secured.shown.connection) as client:
        ranking = client.rank(published.requests[0])
    assert ranking.version == published.old
    found = np.stack(list(ranking.probabilities.values()))
    np.testing.assert_allclose(found, published.expected[published.old][0], atol=1e-5)
    status, answer = post(secured.rest(), rest_body(published.tensors[0]))
    assert (status, answer["model_version"]) == (200, published.old)
    for which in (0, 1):
        assert "certificate has expired" in secured.servers[which].log.read_text()


def test_who_does_not_encrypt_is_refused(secured):
    for server in secured.servers:
        assert why_refused(server, ClientCredentials())
    connection = http.client.HTTPConnection("localhost", secured.servers[1].http_port, timeout=5)
    with pytest.raises(REFUSED):
        connection.request("GET", "/v2")
        connection.getresponse()
    for path, port in (("live", secured.health_port), ("ready", secured.health_port)):
        with urllib.request.urlopen(f"http://localhost:{port}/{path}", timeout=5) as answer:
            assert answer.status == 200


def test_certificates_of_another_authority_are_refused(secured, tmp_path):
    other = Authority("ours")
    certificate, key = other.issue()
    stranger = Secret(tmp_path / "stranger", tls_crt=certificate, tls_key=key, ca_crt=other.pem)
    impostor = {"certificate": stranger.path("tls.crt"), "key": stranger.path("tls.key")}
    for server in secured.servers:
        # Their server's, ours with theirs, and ours with none.
        assert why_refused(server, replace(secured.shown, ca=stranger.path("ca.crt")))
        assert why_refused(server, replace(secured.shown, **impostor))
        assert why_refused(server, ClientCredentials(ca=secured.shown.ca))
    with pytest.raises(ssl.SSLCertVerificationError):
        secured.rest(ca=stranger.path("ca.crt")).request("GET", "/v2")
    for files in (impostor, {"certificate": "", "key": ""}):
        connection = secured.rest(**files)
        with pytest.raises(REFUSED):
            connection.request("GET", "/v2/health/live")
            connection.getresponse()


@pytest.mark.parametrize("sent", [None, b"Bearer ", b"Bearer wrong-token-" + b"c" * 20, b"Basic " + TOKEN, TOKEN])
def test_control_calls_without_the_token_are_refused(published, secured, sent):
    metadata = [("authorization", sent.decode())] if sent is not None else []
    for server in secured.servers:
        with secured.shown.channel(server.address) as channel:
            stub = pb_grpc.GRPCInferenceServiceStub(channel)
            for call, request in (
                (stub.RepositoryModelLoad, pb.RepositoryModelLoadRequest(model_name=NAME)),
                (stub.RepositoryModelUnload, pb.RepositoryModelUnloadRequest(model_name=NAME)),
            ):
                with pytest.raises(grpc.RpcError) as error:
                    call(request, timeout=10, metadata=metadata)
                assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
                assert "control token" in error.value.details()
    headers = {"Authorization": sent.decode()} if sent is not None else {}
    for path in (f"{NAME}/load", f"{NAME}/unload", "x/load", f"{NAME}/unload/"):
        status, answer = post(secured.rest(), b"", f"/v2/repository/models/{path}", **headers)
        assert status == 401 and "control token" in answer["error"], path
    with RankerClient(secured.servers[1].address, connection=secured.shown.connection) as client:
        assert client.rank(published.requests[0]).version == published.old


def test_token_is_replaced_while_serving(secured):
    def status(token: bytes) -> int:
        headers = {"Authorization": f"Bearer {token.decode()}"}
        return post(secured.rest(), b"", f"/v2/repository/models/{NAME}/load", **headers)[0]

    assert (status(TOKEN), status(NEXT_TOKEN)) == (200, 401)
    # A file that holds no token is not one that lets everybody in.
    secured.secrets[1].put(token=b"")
    wait_until(lambda: secured.metric(1, "afterclick_credentials_refused", "control_token") == 1)
    assert (status(TOKEN), status(b"")) == (200, 401)
    secured.secrets[1].put(token=NEXT_TOKEN + b"\n" + TOKEN + b"\n")
    wait_until(lambda: status(NEXT_TOKEN) == 200)
    assert status(TOKEN) == 200
    secured.secrets[1].put(token=NEXT_TOKEN)
    wait_until(lambda: status(TOKEN) == 401)
    assert status(NEXT_TOKEN) == 200
    secured.secrets[1].put(token=TOKEN)
    wait_until(lambda: status(TOKEN) == 200)


def test_half_written_pair_leaves_the_last_good_one(published, secured):
    """Certificate new and key old: all go on with the pair before, until the other half comes."""
    certificates = [secured.authority.issue(timedelta(hours=hours)) for hours in (5, 6)]
    ports = (secured.servers[0].grpc_port, secured.servers[1].grpc_port, secured.servers[1].http_port)
    before = [shown_by(port, secured.shown).serial_number for port in ports]
    with RankerClient(secured.servers[1].address, connection=secured.shown.connection) as client:
        for secret, (certificate, _) in zip(secured.secrets, certificates, strict=True):
            secret.put(tls_crt=certificate)
        for which in (0, 1):
            refused = ("afterclick_credentials_refused", "tls_certificate")
            wait_until(lambda which=which: secured.metric(which, *refused) == 1)  # noqa: B023
            assert "do not belong together" in secured.servers[which].log.read_text()
        assert [shown_by(port, secured.shown).serial_number for port in ports] == before
        assert client.rank(published.requests[0]).version == published.old
        for secret, pair in zip(secured.secrets, certificates, strict=True):
            secret.put_pair(pair)
        wanted = [x509.load_pem_x509_certificate(certificates[which][0]) for which in (0, 1, 1)]

        def replaced() -> bool:
            # Requests go on meanwhile, look-ups with the ranker's new certificate among them.
            assert client.rank(published.requests[0]).version == published.old
            return [shown_by(port, secured.shown) for port in ports] == wanted

        wait_until(replaced)
    for which in (0, 1):
        expires = secured.metric(which, "afterclick_certificate_expires_timestamp_seconds", "tls_certificate")
        assert expires == wanted[which].not_valid_after_utc.timestamp()


def test_authorities_are_replaced_while_serving(secured, published, tmp_path):
    """Clients of both are let in while a file holds both; then those of the one before no more."""
    other = Authority("next")
    certificate, key = other.issue()
    following = Secret(tmp_path / "next", tls_crt=certificate, tls_key=key)
    shown = {"certificate": following.path("tls.crt"), "key": following.path("tls.key")}

    def let_in(**files: str) -> bool:
        try:
            connection = secured.rest(**files)
            connection.request("GET", "/v2/health/live")
            rest = connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            rest = False
        with replace(secured.shown, **files).channel(secured.servers[1].address) as channel:
            try:
                pb_grpc.GRPCInferenceServiceStub(channel).ServerLive(pb.ServerLiveRequest(), timeout=5)
            except grpc.RpcError:
                return False
        return rest

    assert let_in() and not let_in(**shown)
    secured.secrets[1].put(ca_crt=secured.authority.pem + other.pem)
    wait_until(lambda: let_in(**shown))
    assert let_in()
    secured.secrets[1].put(ca_crt=secured.authority.pem)
    wait_until(lambda: not let_in(**shown))
    assert let_in()


def test_rollout_needs_the_token_and_changes_nothing_without(published, secured, tmp_path):
    store, (embedding, ranker) = published.store, secured.servers
    (tmp_path / "wrong").write_bytes(b"wrong-token-" + b"d" * 20)

    def plan(token: str) -> RolloutPlan:
        shown = replace(secured.shown, token=token)
        return RolloutPlan((embedding.address,), (ranker.address,), (1.0,), credentials=shown)

    for token in ("", str(tmp_path / "wrong")):
        with pytest.raises(InputError, match="control token.*nothing has changed"):
            Rollout(store, NAME, plan(token)).to(published.new)
    assert known_deployment(store, NAME).current == published.old
    assert known_deployment(store, NAME).phase == "steady"
    Rollout(store, NAME, plan(secured.client.path("token"))).to(published.new)
    with RankerClient(ranker.address, connection=secured.shown.connection) as client:
        assert client.rank(published.requests[0]).version == published.new
        with pytest.raises(ServerError) as error:
            client.rank(published.requests[0], "../" * 20 + "etc/passwd")
    assert error.value.code == "NOT_FOUND"
