"""An HTTP proxy on loopback in front of a real object store, in which what it is told to goes wrong."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.processes import PATIENCE_S

LISTING = r"list-type=2|/o\?"
"""The requests by which S3 and GCS are asked what there is."""
NOT_PASSED_ON = ("transfer-encoding", "connection", "content-length")


def reading(key: str) -> str:
    """Returns what tells requests for an object's bytes."""
    return rf"/{re.escape(key)}(\?.*alt=media|\?x-id=GetObject|$)"


@dataclass(frozen=True)
class Trouble:
    """What goes wrong with some requests; of several that match one the first counts.

    Attributes:
        on: a pattern found in their targets, as they are without percent signs.
        status: they are answered with this.
        message: and with this.
        silent: they are never answered.
        cut_after: so many bytes of the answer's body pass, then the connection is reset.
        slow_bytes: the body comes in pieces of this size, each a while after the one before.
        rewrite: changes the answer's body.
        first: what is done before they are answered.
        begin: how many pass before the first is struck.
        times: how many are struck, if not all.
    """

    on: str
    status: int | None = None
    message: str = "told to"
    silent: bool = False
    cut_after: int | None = None
    slow_bytes: int | None = None
    rewrite: Callable[[bytes], bytes] | None = None
    first: Callable[[], object] | None = None
    begin: int = 0
    times: int | None = None


@dataclass
class StoreProxy:
    """A proxy at work.

    Attributes:
        url: where it is.
        troubles: what goes wrong.
        struck: the targets of requests for which something did.
    seen: the methods and targets of all requests.
    """

    url: str
    troubles: list[Trouble] = field(default_factory=list)
    struck: list[str] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)
    _seen: dict[int, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, target: str) -> Trouble | None:
        """Returns what goes wrong with a request."""
        with self._lock:
            for trouble in self.troubles:
                if not re.search(trouble.on, target):
                    continue
                seen = self._seen.get(id(trouble), 0)
                self._seen[id(trouble)] = seen + 1
                if seen >= trouble.begin and (trouble.times is None or seen < trouble.begin + trouble.times):
                    self.struck.append(target)
                    return trouble
        return None


@contextlib.contextmanager
def store_proxy(target: str) -> Iterator[StoreProxy]:
    """Runs a proxy to a store's URL for as long as the body runs; leaves no thread and no socket."""
    address = urlsplit(target).netloc
    proxy = StoreProxy("")

    class Handler(_Handler):
        upstream, shared = address, proxy

    with _Server(("127.0.0.1", 0), Handler) as server:
        proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield proxy
        finally:
            proxy.ending.set()
            server.shutdown()
            server.end_connections()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._open.add(connection)
        return connection, address

    def end_connections(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: Any) -> None:
        """Says nothing of clients that have gone."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream: str
    shared: StoreProxy

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self.shared.seen.append((self.command, unquote(self.path)))
        trouble = self.shared.take(unquote(self.path)) or Trouble("")
        if trouble.first is not None:
            trouble.first()
        if trouble.silent:
            self.shared.ending.wait()
            self.close_connection = True
        elif trouble.status is not None:
            self._refuse(trouble.status, trouble.message)
        else:
            self._pass_on(trouble)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - names that the server looks for

    def _refuse(self, status: int, message: str) -> None:
        """Answers as S3 does in XML, or as GCS does in JSON."""
        is_gcs = "/storage/" in self.path
        body = (
            f'{{"error": {{"code": {status}, "message": "{message}"}}}}'
            if is_gcs
            else (
                f"<?xml version='1.0'?><Error><Code>{http.client.responses[status].replace(' ', '')}</Code>"
                f"<Message>{message}</Message></Error>"
            )
        )
        self._answer(status, {"Content-Type": "application/json" if is_gcs else "application/xml"})
        self._send_body(body.encode(), Trouble(""))

    def _pass_on(self, trouble: Trouble) -> None:
        connection = http.client.HTTPConnection(self.upstream, timeout=PATIENCE_S)
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with contextlib.closing(connection):
            connection.request(self.command, self.path, content or None, dict(self.headers))
            answer = connection.getresponse()
            body = answer.read()
            length = answer.headers.get("Content-Length")
        headers = {k: v for k, v in answer.headers.items() if k.lower() not in NOT_PASSED_ON}
        self._answer(answer.status, headers)
        if self.command == "HEAD":
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            return
        self._send_body(trouble.rewrite(body) if trouble.rewrite else body, trouble)

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)

    def _send_body(self, body: bytes, trouble: Trouble) -> None:
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if trouble.cut_after is not None:
            self.wfile.write(body[: trouble.cut_after])
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        step = trouble.slow_bytes or max(1, len(body))
        for start in range(0, len(body), step):
            if start:
                self.shared.ending.wait(SLOW_S)
            self.wfile.write(body[start : start + step])


SLOW_S = 0.05
"""Between two pieces of a slow answer."""
