"""Serving: the socket, the line that says it is open, the end by signal or with the parent process."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mixpanel_emulator.fault_effects import TRANSPORT
from mixpanel_emulator.gauges import ON_USE, Gauges

HEADER_BYTES = 64 * 1024  # a head larger than this is no request; httptools itself has no limit
KEEP_ALIVE_S = 75  # long, so that no client meets a connection that closes just as it is used again
SHUTDOWN_S = 3
GC_OBJECTS = 50_000


def open_socket(host: str, port: int) -> socket.socket:
    """Returns a socket that listens; who connects from now on is served as soon as the server is up."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((host, port))
        opened.listen(1024)
    except OSError:
        opened.close()
        raise
    return opened


def address_of(opened: socket.socket) -> str:
    """Returns the base address of a listening socket."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: ASGIApp, opened: socket.socket, gauges: Gauges, on_ready: Callable[[], None]) -> None:
    """Serves until SIGTERM or SIGINT; `on_ready` is called once requests are answered."""
    # A request makes thousands of objects and no cycles; looking for those after every 700 costs a tenth.
    gc.freeze()
    gc.set_threshold(GC_OBJECTS)
    config = uvicorn.Config(
        app,
        http=_protocol(gauges),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    _Server(config, on_ready).run(sockets=[opened])


def end_with_parent() -> None:
    """Ends this process when its standard input does: the parent that holds the other end is gone."""
    threading.Thread(target=_watch_input, name="parent-watch", daemon=True).start()


def _watch_input() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    threading.Timer(SHUTDOWN_S + 2, os._exit, (1,)).start()
    os.kill(os.getpid(), signal.SIGTERM)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Takes signals as an order to end; unlike uvicorn's own, it does not raise them again afterwards."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield


def _protocol(gauges: Gauges) -> type[asyncio.Protocol]:
    class Protocol(HttpToolsProtocol):
        """Counts connections, bounds a request's head, and hands its transport to the faults."""

        _head_bytes = 0
        _used = False

        def connection_lost(self, exc: Exception | None) -> None:
            if self._used:
                gauges.disconnected()
            super().connection_lost(exc)

        def eof_received(self) -> bool | None:  # type: ignore[override]
            """Lets a client that has said all it had to say, and closed its side, have its answer."""
            if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
                return None
            self.cycle.keep_alive = False
            return True

        def on_message_begin(self) -> None:
            self._head_bytes = 0
            super().on_message_begin()
            scope: Any = self.scope
            scope["extensions"] = {TRANSPORT: self.transport, ON_USE: self._use}

        def _use(self) -> None:
            if not self._used:
                self._used = True
                gauges.connected()

        def on_url(self, url: bytes) -> None:
            self._bound(len(url))
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            self._bound(len(name) + len(value))
            super().on_header(name, value)

        def _bound(self, size: int) -> None:
            self._head_bytes += size
            if self._head_bytes > HEADER_BYTES:
                raise ValueError("request head too large")

    return Protocol
