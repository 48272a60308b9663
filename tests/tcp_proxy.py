"""A TCP proxy on loopback that makes the way to a server bad: slow, narrow, in slices, cut or silent."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

PIECE = 1 << 14


@dataclass(frozen=True)
class Toxic:
    """What is wrong with one direction of a connection.

    Attributes:
        upstream: whether it is what the client sends, else what the server answers.
        delay_s: each piece comes so much later.
        jitter_s: and by chance up to so much more.
        bytes_per_second: no more than that passes.
        slice_bytes: pieces are cut into slices of this size.
        cut_after: so many bytes pass, then the connection is closed.
        reset: it is closed by a reset, at `cut_after` or with the first piece.
        silent: nothing passes at all.
        half_open: the other end goes away with the first piece, and this one is never told.
        close_after_s: the end of the connection is told so much later.
        rewrite: changes each piece.
    """

    upstream: bool = False
    delay_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_second: int = 0
    slice_bytes: int = PIECE
    cut_after: int | None = None
    reset: bool = False
    silent: bool = False
    half_open: bool = False
    close_after_s: float = 0.0
    rewrite: Callable[[bytes], bytes] | None = None


@dataclass
class Proxy:
    """A proxy at work: `toxic` strikes the next `times` connections, `struck` counts what it really did."""

    url: str
    toxic: Toxic | None = None
    times: int = 0
    struck: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    ending: threading.Event = field(default_factory=threading.Event)

    def poison(self, toxic: Toxic, times: int = 1) -> None:
        """Puts a toxic in force for the next connections."""
        self.toxic, self.times = toxic, times

    def take(self) -> Toxic | None:
        """Returns what is wrong with a new connection."""
        self.times -= 1
        return self.toxic if self.times >= 0 else None


@contextlib.contextmanager
def tcp_proxy(target: str) -> Iterator[Proxy]:
    """Runs a proxy to a URL's host for as long as the body runs; leaves no thread and no socket."""
    parts = urlsplit(target)
    address = (parts.hostname or "", parts.port or 80)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy(f"http://127.0.0.1:{listener.getsockname()[1]}")
        sockets: list[socket.socket] = []
        threads: list[threading.Thread] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    server = socket.create_connection(address)
                    sockets.extend((client, server))
                    toxic = proxy.take()
                    for source, sink, up in ((client, server, True), (server, client, False)):
                        mine = toxic if toxic is not None and toxic.upstream == up else Toxic()
                        pump = threading.Thread(target=_pump, args=(proxy, source, sink, mine, toxic))
                        threads.append(pump)
                        pump.start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield proxy
        finally:
            proxy.ending.set()
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            for end in sockets:
                _shut(end)
            for thread in threads:
                thread.join()
            for end in sockets:
                end.close()


def _pump(proxy: Proxy, source: socket.socket, sink: socket.socket, toxic: Toxic, any_: Toxic | None) -> None:
    left, struck = toxic.cut_after, False
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE):
            if toxic is any_ and not struck:
                struck = True
                proxy.struck += 1
            if toxic.half_open:
                _shut(source)
                proxy.ending.wait()
                return
            if toxic.silent:
                continue
            piece = toxic.rewrite(piece) if toxic.rewrite else piece
            for start in range(0, len(piece), toxic.slice_bytes):
                part = piece[start : start + toxic.slice_bytes]
                wait_s = toxic.delay_s + len(part) / (toxic.bytes_per_second or float("inf"))
                wait_s += proxy.chance.uniform(0.0, toxic.jitter_s)
                if wait_s:
                    proxy.ending.wait(wait_s)
                sink.sendall(part if left is None else part[:left])
                left = None if left is None else left - len(part)
                if left is not None and left <= 0:
                    _end(source, sink, toxic.reset)
                    return
    proxy.ending.wait(toxic.close_after_s)
    _shut(sink)


def _end(source: socket.socket, sink: socket.socket, reset: bool) -> None:
    """Ends a connection on both sides, the sink's by a reset if asked."""
    if reset:
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sink.shutdown(socket.SHUT_RD)  # else the other direction would wait in it for ever
        sink.close()
    _shut(sink)
    _shut(source)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
