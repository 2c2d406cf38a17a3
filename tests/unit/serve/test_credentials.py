"""Files that cannot be used are named with what is wrong; the token is compared as it must be."""

from __future__ import annotations

from datetime import timedelta

import pytest

from components.common.errors import InputError
from components.serve.config import EmbeddingTierConfig, RankerTierConfig
from components.serve.control import is_control_method, is_control_request
from components.serve.credentials import ClientCredentials, Mounted, read_authorities, read_pair
from components.serve.tier_credentials import TierCredentials
from tests.certificates import Authority, Secret

TOKEN = b"token-" + b"a" * 20


@pytest.fixture(scope="module")
def authority():
    return Authority("ours")


@pytest.fixture
def secret(authority, tmp_path):
    certificate, key = authority.issue()
    return Secret(tmp_path / "secret", tls_crt=certificate, tls_key=key, ca_crt=authority.pem, token=TOKEN)


def config_of(secret, **settings):
    files = {"tls_certificate": secret.path("tls.crt"), "tls_key": secret.path("tls.key")}
    return EmbeddingTierConfig(store_uri="store", **files | settings)


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("tls_crt", b"", "tls_certificate .*tls.crt and .*: no certificate in PEM"),
        ("tls_crt", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate in PEM"),
        ("tls_key", b"key", "the key is not readable .* must be PEM without a password"),
        ("tls_key", None, "certificate and key do not belong together; mount both from one secret"),
        ("ca_crt", b"", "tls_client_ca .*ca.crt: no certificate in PEM"),
        ("token", b"", "control_token .*token: must hold a token of 16 or more"),
        ("token", b"short\n", "must hold a token of 16 or more"),
        ("token", TOKEN + b"\nshort", "must hold a token of 16 or more"),
        ("token", "tökên".encode() * 9, "ASCII"),
    ],
)
def test_files_that_cannot_be_used_are_named(authority, secret, file, content, expected):
    secret.put(**{file: authority.issue()[1] if content is None else content})
    with pytest.raises(InputError, match=expected):
        TierCredentials(config_of(secret, tls_client_ca=secret.path("ca.crt"), control_token=secret.path("token")))


def test_absent_files_and_settings_without_their_others_are_named(secret):
    with pytest.raises(InputError, match="control_token .*absent: .*No such file"):
        TierCredentials(config_of(secret, control_token=secret.path("absent")))
    for values, expected in (
        ({"tls_key": "key.pem"}, "tls_certificate '' and tls_key 'key.pem': give both, or neither"),
        ({"tls_client_ca": "ca.pem"}, "tls_client_ca 'ca.pem' needs tls_certificate and tls_key"),
        ({"embedding_ca": "ca.pem"}, "embedding_ca 'ca.pem' needs embedding_address"),
        ({"embedding_address": "e:1", "embedding_name": "e"}, "embedding_name 'e' needs embedding_ca"),
    ):
        with pytest.raises(InputError, match=expected):
            RankerTierConfig.parse({"store_uri": "store", **values}, "settings")
    for shown in ({"certificate": "a.pem", "ca": "ca.pem"}, {"certificate": "a.pem", "key": "b.pem"}):
        with pytest.raises(InputError, match="give both, or neither|only with the file of a CA"):
            ClientCredentials(**shown)


def test_expired_certificate_does_not_replace_one_that_is_good(authority, secret):
    mounted = Mounted("tls_certificate", (secret.path("tls.crt"), secret.path("tls.key")), read_pair)
    good = mounted.value
    secret.put_pair(authority.issue(timedelta(days=-0.1)))
    mounted.refresh()
    assert mounted.value == good
    following = authority.issue()
    secret.put_pair(following)
    mounted.refresh()
    assert (mounted.value.pem, mounted.value.key) == following


def test_files_that_vanish_leave_what_they_said(secret):
    mounted = Mounted("tls_client_ca", (secret.path("ca.crt"),), read_authorities)
    good = mounted.value
    (secret.folder / "..data").unlink()
    mounted.refresh()
    assert mounted.value == good


def test_token_is_taken_as_a_whole_and_only_as_a_bearer(secret):
    both = TOKEN + b"\n" + b"other-" + b"b" * 20
    secret.put(token=both)
    credentials = TierCredentials(config_of(secret, control_token=secret.path("token")))
    text = TOKEN.decode()
    for right in (f"Bearer {text}", f"bearer {text}", f"Bearer  {text} ", "Bearer other-" + "b" * 20):
        assert credentials.may_control(right), right
    for wrong in ("", "Bearer", "Bearer ", text, f"Basic {text}", f"Bearer {text[:-1]}", f"Bearer {text}a", "Bearer ü"):
        assert not credentials.may_control(wrong), wrong
    assert not credentials.may_control(f"Bearer {both.decode()}")
    assert TierCredentials(config_of(secret)).may_control("")


def test_what_is_not_known_to_change_nothing_needs_the_token():
    prefix = "/inference.GRPCInferenceService/"
    assert not any(is_control_method(prefix + name) for name in ("ModelInfer", "ServerLive", "ModelMetadata"))
    assert all(is_control_method(prefix + name) for name in ("RepositoryModelLoad", "RepositoryModelUnload", "Later"))
    assert not is_control_request("POST", "/v2/models/ranker/infer")
    assert not is_control_request("GET", "/v2/repository/models/x/load")
    for path in ("/v2/repository/models/x/load", "/v2/repository/models/a/infer/unload", "/v2/later", "/infer/"):
        assert is_control_request("POST", path), path
    assert is_control_request("DELETE", "/v2/models/ranker/infer")
