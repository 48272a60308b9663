"""Answers that break, never end or never come: each is told for what it is, none taken for a success."""

from __future__ import annotations

import base64
import gc
import json
import socket
import struct
import sys
import threading
from collections.abc import Callable

import pytest

from mixpanel_http.client import ImportClient
from mixpanel_http.destinations import Destination
from mixpanel_http.endpoints import compress
from mixpanel_http.failure_table import AnswerClass
from mixpanel_http.secret_refs import SecretRef
from tests.loopback import Answerer, always, http, loopback_server
from tests.one_request import BODY, OK, TOKEN, client, send


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_TOKEN", TOKEN)


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


def closes(connection: socket.socket) -> None:
    connection.close()


def resets(connection: socket.socket) -> None:
    reset(connection, b"")


def speaks_http(connection: socket.socket) -> None:
    connection.sendall(http(400, b"this is no TLS"))


def breaks_off(connection: socket.socket) -> None:
    connection.sendall(b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03" + bytes(20))  # of a ServerHello


@pytest.mark.parametrize("abort", [closes, resets, speaks_http, breaks_off])
def test_a_handshake_of_tls_that_is_aborted_is_told_as_not_sent(
    abort: Callable[[socket.socket], None],
) -> None:
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(1 << 16))
                abort(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        answer = send(f"https://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()

    assert heard[0][:1] == b"\x16", "a ClientHello"
    assert (answer.kind, answer.label, answer.sent) == (AnswerClass.TRANSIENT, "no connection", False)
