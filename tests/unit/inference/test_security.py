from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inference.access import AccessInterceptor, read_access_rules
from inference.client_limits import INFER_METHOD, ClientLimiter, ClientLimits
from inference.errors import AccessDenied, Busy, ClientUnknown, SettingsRefused
from inference.security import TlsFiles, address_of, certificate_names, client_of, server_credentials
from protos.open_inference_pb2 import DESCRIPTOR, ModelInferRequest

METHODS = sorted(
    f"/{service.full_name}/{method.name}"
    for service in DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
RULES = {"/inference.GRPCInferenceService/*": frozenset({"spiffe://hilum/node"})}


def context(peer: str = "ipv4:10.0.0.1:4711", **properties: list[bytes]) -> Any:
    return SimpleNamespace(
        auth_context=lambda: properties, peer=lambda: peer, time_remaining=lambda: None, is_active=lambda: True
    )


def with_san(*names: bytes) -> Any:
    return context(x509_subject_alternative_name=list(names), x509_common_name=[b"cn"])


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:4711", "10.0.0.1"),
        ("ipv6:%5B::1%5D:4711", "::1"),
        ("ipv6:[fe80::1]:4711", "fe80::1"),
        ("unix:", "unix"),
        ("unix:/run/s", "unix"),
    ],
)
def test_an_address_is_named_without_its_port(peer: str, address: str) -> None:
    assert address_of(peer) == address
    assert client_of(context(peer)) == address


def test_a_certificate_names_the_client_by_its_first_san_else_its_cn() -> None:
    assert client_of(with_san(b"spiffe://hilum/node", b"other")) == "spiffe://hilum/node"
    assert client_of(context(x509_common_name=[b"cn"])) == "cn"


def test_a_certificate_cannot_claim_to_be_the_unix_socket() -> None:
    assert certificate_names(with_san(b"unix", b"a")) == {"a"}
    assert certificate_names(context("unix:")) == {"unix"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("caller", "error"),
    [
        (context(), ClientUnknown),
        (context(x509_common_name=[b"spiffe://hilum/node"]), ClientUnknown),
        (with_san(b"spiffe://hilum/other"), AccessDenied),
        (with_san(b"spiffe://hilum/node"), None),
    ],
    ids=["none", "cn alone", "other", "allowed"],
)
def test_a_method_is_for_the_listed_san_alone(method: str, caller: Any, error: type[Exception] | None) -> None:
    gate = AccessInterceptor(RULES)
    if error is None:
        with gate.around(method, "request", caller) as seen:
            assert seen == "request"
        return
    with pytest.raises(error), gate.around(method, "request", caller):
        pytest.fail("the method was reached")


def test_what_no_rule_names_is_denied() -> None:
    gate = AccessInterceptor(RULES)
    with pytest.raises(AccessDenied), gate.around("/grpc.health.v1.Health/Check", None, with_san(b"a")):
        pytest.fail("the method was reached")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[allow", "cannot be read as TOML"),
        ("[deny]", r"must hold the table \[allow\]"),
        ('[allow]\n"/inference.GRPCInferenceService/*" = "a"', "must be a list of SANs"),
        ('[allow]\n"/inference.GRPCInferenceService/Infer" = ["a"]', "matches no method"),
    ],
)
def test_a_wrong_access_file_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "access.toml"
    file.write_text(text)
    with pytest.raises(SettingsRefused, match=sentence):
        read_access_rules(file, METHODS)


def test_an_access_file_that_is_not_there_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsRefused, match=r"--access .*absent\.toml: no such file$"):
        read_access_rules(tmp_path / "absent.toml", METHODS)
    with pytest.raises(SettingsRefused, match="cannot be read: Is a directory"):
        read_access_rules(tmp_path, METHODS)


def test_half_a_key_pair_and_what_is_no_pem_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.pem"
    file.write_text("nothing")
    with pytest.raises(SettingsRefused, match="--tls-key: is missing"):
        TlsFiles(file)
    with pytest.raises(SettingsRefused, match="--client-ca"):
        TlsFiles(client_ca=file)
    with pytest.raises(SettingsRefused, match="holds no PEM block 'PRIVATE KEY'"):
        server_credentials(TlsFiles(file, file))


def test_a_client_over_its_limits_is_told_which_and_others_go_on() -> None:
    limiter = ClientLimiter(ClientLimits(concurrency=1, queue=0, inflight_mb=1, streams=1))
    stream = "/hilum.inference.TensorRegions/Lease"
    here, there = context(), context("ipv4:10.0.0.2:1")
    small, large = ModelInferRequest(), ModelInferRequest(raw_input_contents=[bytes(1 << 20)])
    with limiter.around(INFER_METHOD, small, here), limiter.around(stream, iter(()), here):
        with pytest.raises(Busy, match="--client-queue"), limiter.around(INFER_METHOD, small, here):
            pytest.fail("ran")
        with pytest.raises(Busy, match="--client-streams"), limiter.around(stream, iter(()), here):
            pytest.fail("ran")
        with pytest.raises(Busy, match="--client-inflight-mb"), limiter.around(INFER_METHOD, large, here):
            pytest.fail("ran")
        with limiter.around(INFER_METHOD, small, there):
            pass
    with limiter.around(INFER_METHOD, small, here):
        pass
    assert limiter._held == {}
