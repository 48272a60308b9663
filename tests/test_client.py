"""The HTTP client: what it sends, what it never follows or believes, and what broken answers mean."""

from __future__ import annotations

import base64
import gc
import gzip
import json
import socket
import struct
import sys
import threading
from pathlib import Path

import pytest

from mixpanel_http.answers import Answer
from mixpanel_http.client import (
    HOSTS,
    Destination,
    EndpointRefused,
    ImportClient,
    check_endpoint,
    tls_context,
)
from mixpanel_http.endpoints import compress
from mixpanel_http.failure_table import AnswerClass
from mixpanel_http.secret_refs import SecretRef
from tests.loopback import Answerer, always, http, loopback_server, self_signed

TOKEN = "CANARY-TOKEN"
BODY = b'{"event":"a","properties":{"time":1,"distinct_id":"u","$insert_id":"i"}}'
OK = http(200, b'{"code":200,"num_records_imported":1,"status":"OK"}')


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_TOKEN", TOKEN)


def client(url: str) -> ImportClient:
    return ImportClient(Destination(url, SecretRef("env:TEST_TOKEN")), connections=2)


def send(url: str, body: bytes = BODY) -> Answer:
    sender = client(url)
    try:
        return sender.send(compress(body), 1)
    finally:
        sender.close()


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


# --- answers that break ------------------------------------------------------------------------------


def reset(connection: socket.socket, _request: bytes) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def end(connection: socket.socket, _request: bytes) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def then_end(said: bytes) -> Answerer:
    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(said)
        end(connection, request)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        reset,
        end,
        then_end(b"HTTP/1.1 200"),
        then_end(b"\x16\x03\x01 no http at all\r\n\r\n"),
        then_end(http(200, b"{}", Content_Length="99999")),
        then_end(http(200, b'{"code":200,"num_rec', Content_Length="60")),
        then_end(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"),
        then_end(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}"),
        always(http(200, b"no gzip", Content_Encoding="gzip")),
    ],
    ids=range(9),
)
def test_a_broken_answer_is_ambiguous_and_never_a_success(answer: Answerer) -> None:
    with loopback_server(answer) as server:
        read = send(server.url)

    assert len(server.requests) == 1
    assert read.kind is AnswerClass.AMBIGUOUS
    assert TOKEN not in read.message
    assert "127.0.0.1" not in read.message


@pytest.mark.parametrize(
    "answer",
    [
        reset,
        end,
        then_end(http(200, b"{}", Content_Length="99999")),
        always(http(200, b"no gzip", Content_Encoding="gzip")),
    ],
    ids=range(4),
)
def test_a_body_is_let_go_of_when_its_answer_breaks(answer: Answerer) -> None:
    body = compress(BODY)
    gc.disable()  # it would let go of what holds itself, too, but minutes later
    try:
        held = sys.getrefcount(body)
        with loopback_server(answer) as server:
            sender = client(server.url)
            assert sender.send(body, 1).kind is AnswerClass.AMBIGUOUS
            sender.close()
        assert sys.getrefcount(body) == held
    finally:
        gc.enable()


def test_an_answer_cut_at_any_byte_is_never_a_success() -> None:
    for length in range(len(OK)):
        with loopback_server(then_end(OK[:length])) as server:
            assert send(server.url).kind is AnswerClass.AMBIGUOUS, length


def test_an_answer_without_end_is_given_up() -> None:
    def drip(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"ffff\r\n" + b" " * 0xFFFF + b"\r\n")

    with loopback_server(drip) as server:
        answer = send(server.url)

    assert answer.kind is AnswerClass.AMBIGUOUS


def test_an_answer_that_drips_is_given_up_in_time() -> None:
    times = iter(range(0, 100_000, 7))
    gone = threading.Event()

    def drip(connection: socket.socket, _request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not gone.is_set():
            connection.sendall(b"1\r\n \r\n")

    with loopback_server(drip) as server:
        destination = Destination(server.url, SecretRef("env:TEST_TOKEN"))
        answer = ImportClient(destination, 1, monotonic=lambda: float(next(times))).send(compress(BODY), 1)
        gone.set()

    assert (answer.kind, answer.label) == (AnswerClass.AMBIGUOUS, "no answer in time")


def test_nobody_listening_is_told_as_not_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]

    answer = send(f"http://127.0.0.1:{port}")

    assert (answer.kind, answer.label, answer.sent) == (AnswerClass.TRANSIENT, "no connection", False)


def test_a_host_that_does_not_exist_is_told_as_not_sent() -> None:
    answer = send("https://mixpanel.invalid")

    assert (answer.kind, answer.label, answer.sent) == (AnswerClass.TRANSIENT, "no connection", False)


def test_a_413_that_comes_before_the_body_is_through_is_heard() -> None:
    body = json.dumps({"x": base64.b64encode(bytes(range(256)) * 40_000).decode()}).encode()
    said = http(413, b'{"error":"request exceeds max limit of 1048576 bytes"}')
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(said)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 20):
                    pass

        thread = threading.Thread(target=refuse, daemon=True)
        thread.start()
        sender = client(f"http://127.0.0.1:{listener.getsockname()[1]}")
        answer = sender.send(body, 1)
        sender.close()
        thread.join()

    assert (answer.status, answer.largest_bytes) == (413, 1_048_576)


# --- R36: where records may go -----------------------------------------------------------------------

REFUSED = [
    "",
    "api.mixpanel.com",
    "//api.mixpanel.com",
    "http://api.mixpanel.com",
    "ftp://api.mixpanel.com",
    "file:///etc/passwd",
    "file://127.0.0.1/etc/passwd",
    "unix:///run/x",
    "javascript:alert(1)",
    "https://",
    "https://:443",
    "https://evil.example",
    "https://evil.example/api.mixpanel.com",
    "https://evil.example?api.mixpanel.com",
    "https://evil.example#https://api.mixpanel.com",
    "https://api.mixpanel.com.evil.example",
    "https://api.mixpanel.com@evil.example",
    "https://api.mixpanel.com:443@evil.example",
    "https://user@api.mixpanel.com",
    "https://user:password@api.mixpanel.com",
    "https://@api.mixpanel.com",
    "https://api.mixpanel.com\\@evil.example",
    "https://evil.example\\.api.mixpanel.com",
    "https://xapi.mixpanel.com",
    "https://api-mixpanel.com",
    "https://api.mixpanel.com:8443",
    "https://api.mixpanel.com:99999",
    "https://api.mixpanel.com:0x1bb",
    "https://api.mixpanel.com\r\nHost: evil.example",
    "https://api.mixpanel.com\nX: y",
    "https://api.mixpanel.com\t",
    " https://api.mixpanel.com",
    "https://api.mixpanel.com\x00.evil.example",
    "https://api.mixpanel.com%0d%0aHost:evil.example",
    "https://\u0430pi.mixpanel.com",
    "https://api\uff0emixpanel.com",
    "https://api.mixpanel.com/import",
    "https://api.mixpanel.com/../x",
    "http://169.254.169.254",
    "http://169.254.169.254/latest/meta-data",
    "http://[::ffff:169.254.169.254]",
    "http://[fe80::1%25eth0]",
    "http://2852039166",
    "http://2130706433",
    "http://0x7f000001",
    "http://0177.0.0.1",
    "http://127.1",
    "http://0.0.0.0",
    "http://[::]",
    "http://[::1",
    "http://10.0.0.1",
    "http://localhost.evil.example",
    "http://metadata.google.internal",
]


@pytest.mark.parametrize("url", REFUSED, ids=ascii)
def test_an_endpoint_that_is_neither_mixpanels_nor_ours_is_refused(url: str) -> None:
    with pytest.raises(EndpointRefused):
        check_endpoint(url, allow_any=False)


def test_there_are_more_than_forty_tries() -> None:
    assert len(set(REFUSED)) >= 40


@pytest.mark.parametrize(
    "url",
    [*HOSTS.values(), "http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:9", "https://127.9.9.9"],
)
def test_mixpanels_hosts_and_loopback_are_taken(url: str) -> None:
    assert check_endpoint(url, allow_any=False) == url


def test_another_host_is_taken_by_name_only_and_only_with_https() -> None:
    assert check_endpoint("https://proxy.example", allow_any=True) == "https://proxy.example"
    for url in ("http://proxy.example", "http://169.254.169.254", "https://u:p@proxy.example"):
        with pytest.raises(EndpointRefused):
            check_endpoint(url, allow_any=True)


def test_what_is_refused_is_not_repeated_with_its_password() -> None:
    with pytest.raises(EndpointRefused) as refused:
        check_endpoint("https://user:CANARY@evil.example", allow_any=False)

    assert "CANARY" not in str(refused.value)
