"""The HTTP client: what it sends, over which connections, and what it never follows or believes."""

from __future__ import annotations

import base64
import gzip
import socket
from pathlib import Path

import pytest

from mixpanel_http.client import ImportClient, tls_context
from mixpanel_http.destinations import Destination
from mixpanel_http.endpoints import compress
from mixpanel_http.failure_table import AnswerClass
from mixpanel_http.secret_refs import SecretRef
from tests.loopback import always, http, loopback_server, self_signed
from tests.one_request import BODY, OK, TOKEN, client, send


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_TOKEN", TOKEN)


def test_a_request_is_what_mixpanel_documents() -> None:
    with loopback_server(always(OK)) as server:
        answer = send(server.url)

    (request,) = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
    assert answer.kind is AnswerClass.OK
    assert lines[0] == "POST /import?strict=1 HTTP/1.1"
    assert headers["content-type"] == "application/x-ndjson"
    assert headers["content-encoding"] == "gzip"
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == f"{TOKEN}:".encode()
    assert gzip.decompress(body) == BODY


def test_a_service_account_names_its_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_USER", "user.a1b2.mp-service-account")
    with loopback_server(always(OK)) as server:
        destination = Destination(
            server.url, None, SecretRef("env:TEST_USER"), SecretRef("env:TEST_TOKEN"), "12&3"
        )
        ImportClient(destination, 1).send(compress(BODY), 1)

    request = server.requests[0].decode("latin-1")
    assert request.startswith("POST /import?strict=1&project_id=12%263 HTTP/1.1")
    assert base64.b64encode(f"user.a1b2.mp-service-account:{TOKEN}".encode()).decode() in request


def test_one_connection_serves_many_requests() -> None:
    with loopback_server(always(OK)) as server:
        sender = client(server.url)
        for _ in range(50):
            assert sender.send(compress(BODY), 1).kind is AnswerClass.OK
        sender.close()

    assert (server.connections, len(server.requests)) == (1, 50)


def test_a_server_that_closes_its_connections_is_connected_to_again() -> None:
    def answer_and_close(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(OK)
        connection.shutdown(socket.SHUT_RDWR)

    with loopback_server(answer_and_close) as server:
        sender = client(server.url)
        kinds = {sender.send(compress(BODY), 1).kind for _ in range(10)}
        sender.close()

    assert AnswerClass.OK in kinds
    assert kinds <= {AnswerClass.OK, AnswerClass.AMBIGUOUS}
    assert server.connections > 1


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308])
def test_a_redirect_is_never_followed(status: int) -> None:
    with loopback_server(always(OK)) as elsewhere:
        redirect = http(status, b"", Location=f"{elsewhere.url}/import?strict=1", Retry_After="0")
        with loopback_server(always(redirect)) as server:
            answer = send(server.url)

    assert answer.kind is AnswerClass.FATAL
    assert len(server.requests) == 1
    assert elsewhere.connections == 0


@pytest.mark.parametrize("status", [408, 413, 429, 500, 502, 503, 504])
def test_nothing_is_sent_twice_behind_our_back(status: int) -> None:
    with loopback_server(always(http(status, b"{}", Retry_After="0"))) as server:
        assert send(server.url).status == status

    assert len(server.requests) == 1


def test_neither_netrc_nor_proxy_variables_change_where_records_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with loopback_server(always(OK)) as proxy, loopback_server(always(OK)) as server:
        netrc = tmp_path / ".netrc"
        netrc.write_text("machine 127.0.0.1 login thief password thief\ndefault login thief password thief\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(netrc))
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        answer = send(server.url)

    assert answer.kind is AnswerClass.OK
    assert proxy.connections == 0
    assert base64.b64encode(f"{TOKEN}:".encode()) in server.requests[0]


TRIES_TO_TURN_VERIFICATION_OFF = {
    "PYTHONHTTPSVERIFY": "0",
    "CURL_CA_BUNDLE": "",
    "REQUESTS_CA_BUNDLE": "",
    "SSL_CERT_FILE": "/nowhere",
    "SSL_CERT_DIR": "/nowhere",
    "NODE_TLS_REJECT_UNAUTHORIZED": "0",
    "GIT_SSL_NO_VERIFY": "1",
    "OPENSSL_CONF": "/dev/null",
}


@pytest.mark.parametrize("variable", [None, *TRIES_TO_TURN_VERIFICATION_OFF])
@pytest.mark.parametrize(("name", "expired"), [("127.0.0.1", False), ("127.0.0.1", True)])
def test_a_certificate_that_nobody_vouches_for_stops_the_run_whatever_the_environment_says(
    variable: str | None, name: str, expired: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if variable is not None:
        monkeypatch.setenv(variable, TRIES_TO_TURN_VERIFICATION_OFF[variable])
    context, _ = self_signed(tmp_path, name, expired)
    with loopback_server(always(OK), context) as server:
        answer = send(server.url)

    assert (answer.kind, answer.label, answer.sent) == (AnswerClass.FATAL, "bad certificate", False)
    assert not server.requests


def test_a_certificate_of_another_host_stops_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    context, trusted = self_signed(tmp_path, "api.mixpanel.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with loopback_server(always(OK), context) as server:
        answer = send(server.url)

    assert answer.label == "bad certificate"
    assert not server.requests


def test_a_certificate_that_the_machine_trusts_is_good(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    context, trusted = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with loopback_server(always(OK), context) as server:
        assert send(server.url).kind is AnswerClass.OK


def test_the_keys_of_tls_sessions_are_written_nowhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))

    assert tls_context().keylog_filename is None
