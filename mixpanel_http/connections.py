"""Connections that another thread can end: a request that waits on one for its answer then fails at once."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import weakref
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection


class GivenUp(OSError):
    """The run came to its end before an answer did."""


class NotConnected(OSError):
    """The handshake of TLS came to nothing, so that nothing was sent."""


class Connections:
    """The open connections of one client. Safe to share between threads."""

    def __init__(self) -> None:
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()
        self.are_cut = False

    def add(self, connected: socket.socket | None) -> None:
        """Takes note of a connection.

        Raises:
            GivenUp: if it has come too late.
        """
        with self._lock:
            if self.are_cut:
                raise GivenUp
            if connected is not None:
                self._open.add(connected)

    def cut(self) -> None:
        """Ends all connections, and those that are being made as soon as they are."""
        with self._lock:
            self.are_cut = True
            ends = list(self._open)
        for end in ends:
            # Not the socket's own method: that of TLS takes away what another thread is reading by.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(end, socket.SHUT_RDWR)


class _Plain(HTTPConnection):
    def __init__(self, *args: Any, noted: Connections, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._noted = noted

    def connect(self) -> None:
        try:
            super().connect()
        except ssl.SSLCertVerificationError:
            raise
        except OSError as error:
            raise NotConnected from error
        self._noted.add(self.sock)


class _Secure(_Plain, HTTPSConnection):
    """The same over TLS: `_Plain` calls it, as it stands before it among the bases."""


def pool_to(base_url: str, noted: Connections, **settings: Any) -> urllib3.HTTPConnectionPool:
    """Returns a pool of connections to a host that are all taken note of; `settings` are those of urllib3."""
    pool = urllib3.connection_from_url(base_url, noted=noted, **settings)
    pool.ConnectionCls = _Secure if isinstance(pool, urllib3.HTTPSConnectionPool) else _Plain
    return pool
