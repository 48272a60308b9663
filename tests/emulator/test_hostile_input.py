"""Nothing that can be sent makes the emulator fail: it answers, or drops the connection, and goes on."""

import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from mixpanel_emulator.process import start_emulator
from tests.emulator.hostile import make_request
from tests.emulator.talk import connect, event, send

AT_ONCE = 8
QUIET = {"export_per_hour": "0", "query_per_hour": "0", "table_calls_per_day": "0", "rate_events": "0"}


def answer_to(url: str, request: bytes) -> bytes:
    """Returns what came back before the connection ended; a request without an end gets none."""
    parts = []
    with connect(url) as connection:
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                parts.append(part)
        except TimeoutError:
            raise
        except OSError:
            pass  # the emulator may drop whom it does not understand
    return b"".join(parts)


def assert_survives(first: int, count: int) -> None:
    with tempfile.TemporaryFile() as log, start_emulator(settings=QUIET, log=log) as running:

        def status_of(seed: int) -> tuple[int, bytes]:
            head = answer_to(running.url, make_request(seed)).split(b"\r\n", 1)[0]
            return seed, head

        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = list(pool.map(status_of, range(first, first + count)))
        assert [pair for pair in answers if b" 500 " in pair[1]] == []
        answered = [pair for pair in answers if pair[1].startswith(b"HTTP/1.1 ")]
        assert len(answered) > count / 2
        assert send(running.url, [event()]).status == 200
        assert running.stats()["stored"] >= 1
        log.seek(0)
        assert b"Traceback" not in log.read()


def test_generated_requests_do_not_make_it_fail() -> None:
    assert_survives(0, 500)


@pytest.mark.soak
def test_ten_thousand_generated_requests_do_not_make_it_fail() -> None:
    assert_survives(1000, 10_000)


def test_half_requests_are_waited_for_and_forgotten() -> None:
    with start_emulator() as running:
        half = [connect(running.url) for _ in range(100)]
        for place, connection in enumerate(half):
            connection.sendall(
                b"POST /import HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"[: place + 1]
            )
        assert send(running.url, [event()]).status == 200
        for connection in half:
            connection.close()
        assert send(running.url, [event()]).status == 200
        assert running.stats()["stored"] == 2
