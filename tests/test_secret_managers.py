"""Secrets in Google's and Amazon's managers, asked of stand-ins on this machine by their own clients."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator

import pytest

from mixpanel_http.secret_refs import SecretRef, SecretUnavailable
from tests.loopback import LoopbackServer, http, loopback_server

CANARY = "canary-of-a-manager-77"
GCP = "gcp-secret:projects/p-1/secrets/mixpanel/versions/latest"
AWS = "aws-secret:prod/mixpanel"


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackServer]:
    """A Secret Manager that has one secret."""

    def answer(connection: object, request: bytes) -> None:
        path = request.split(b" ")[1]
        if not path.startswith(b"/v1/projects/p-1/secrets/mixpanel/versions/latest:access"):
            content: dict[str, object] = {"error": {"code": 404, "message": "none", "status": "NOT_FOUND"}}
            status = 404
        else:
            data = base64.b64encode(CANARY.encode()).decode()
            content = {"name": "x", "payload": {"data": data}}
            status = 200
        body = json.dumps(content).encode()
        connection.sendall(http(status, body, Content_Type="application/json"))  # type: ignore[attr-defined]

    with loopback_server(answer) as server:
        monkeypatch.setenv("SECRET_MANAGER_EMULATOR_HOST", server.url)
        yield server


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackServer]:
    """A Secrets Manager with a text, and with an object."""
    held = {"prod/mixpanel": CANARY, "prod/both": json.dumps({"token": CANARY, "other": 1})}

    def answer(connection: object, request: bytes) -> None:
        wanted = json.loads(request.partition(b"\r\n\r\n")[2])["SecretId"]
        if wanted in held:
            status, content = 200, {"Name": wanted, "SecretString": held[wanted]}
        else:
            status, content = 400, {"__type": "ResourceNotFoundException", "Message": "none"}
        body = json.dumps(content).encode()
        told = {"Content_Type": "application/x-amz-json-1.1", "x-amz-crc32": str(zlib.crc32(body))}
        connection.sendall(http(status, body, **told))  # type: ignore[attr-defined]

    with loopback_server(answer) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", server.url)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
        yield server


def test_a_secret_of_googles_is_resolved_where_it_is_used(google: LoopbackServer) -> None:
    assert SecretRef(GCP).resolve() == CANARY


def test_a_secret_that_google_has_not_is_named_without_more(google: LoopbackServer) -> None:
    with pytest.raises(SecretUnavailable, match=r"versions/7: Google's Secret Manager gives none: NotFound"):
        SecretRef("gcp-secret:projects/p-1/secrets/mixpanel/versions/7").resolve()


def test_a_stand_in_elsewhere_is_asked_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_MANAGER_EMULATOR_HOST", "https://example.test")
    with pytest.raises(SecretUnavailable, match="must name this machine"):
        SecretRef(GCP).resolve()


def test_a_secret_of_amazons_is_a_text_or_a_key_of_an_object(amazon: LoopbackServer) -> None:
    assert SecretRef(AWS).resolve() == CANARY
    assert SecretRef("aws-secret:prod/both#token").resolve() == CANARY


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("aws-secret:prod/none", "AWS Secrets Manager gives none: ResourceNotFoundException"),
        ("aws-secret:prod/both#other", "has no text under the key other"),
        ("aws-secret:prod/mixpanel#token", "has no text under the key token"),
    ],
)
def test_a_secret_that_amazon_has_not_is_named_without_its_value(
    amazon: LoopbackServer, reference: str, told: str
) -> None:
    with pytest.raises(SecretUnavailable) as refused:
        SecretRef(reference).resolve()
    assert str(refused.value) == f"{reference}: {told}"
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize(
    "value", ["gcp-secret:x", "gcp-secret:projects/p/secrets/s", "aws-secret:", "aws-secret:a b"]
)
def test_a_reference_to_a_manager_has_its_form(value: str) -> None:
    with pytest.raises(ValueError, match="by reference only"):
        SecretRef(value)
