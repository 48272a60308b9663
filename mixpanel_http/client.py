"""The one HTTP client for Mixpanel: pooled connections, explicit limits, nothing taken from the environment.

urllib3 is used directly, with its own retries and redirects off: a redirected POST must not become a GET, and
neither `.netrc` nor proxy variables may change where records and credentials go.
"""

from __future__ import annotations

import io
import logging
import ssl
import time
import traceback
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

import urllib3
from urllib3 import exceptions as transport

from mixpanel_http.answers import Answer, broken_answer
from mixpanel_http.connections import Connections, GivenUp, pool_to
from mixpanel_http.destinations import Destination
from mixpanel_http.endpoints import EVENTS, Endpoint
from mixpanel_http.refused_records import SentIds, no_ids

CONNECT_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 90.0
ANSWER_TIMEOUT_S: Final = 120.0  # for a whole answer, however slowly it drips
MAX_ANSWER_BYTES: Final = 4_000_000  # 2,000 refused records with long messages are far below
# Bodies leave in pieces of this size: the socket's timeout then holds for each, not for ten megabytes in one
# go, which a slow line would never get through.
SEND_BYTES: Final = 1 << 16


# Its warnings repeat the URL; what breaks is told here, without one.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)


class ImportClient:
    """Sends requests to one endpoint over a pool of kept-alive connections. Safe to share between threads."""

    def __init__(
        self,
        destination: Destination,
        connections: int,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        endpoint: Endpoint = EVENTS,
    ) -> None:
        """Resolves the credentials and prepares the pool; connects to nothing yet."""
        query = dict(endpoint.query)
        headers = dict(endpoint.headers)
        if endpoint.in_records:
            self._token = destination.token()
        else:
            self._token = ""
            headers["Authorization"] = destination.authorization()
            if destination.project_id:
                query["project_id"] = destination.project_id
        self._endpoint = endpoint
        self._target = f"{endpoint.path}?{urlencode(query)}"
        self._clock = clock
        self._monotonic = monotonic
        self._headers = {**headers, "Accept": "application/json", "User-Agent": "mixpanel-backfill"}
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S)
        pool: dict[str, Any] = {"maxsize": connections, "block": True, "retries": False, "timeout": timeout}
        if destination.base_url.startswith("https:"):
            pool["ssl_context"] = tls_context()
        self._connections = Connections()
        self._pool = pool_to(destination.base_url, self._connections, blocksize=SEND_BYTES, **pool)

    def send(self, body: bytes, count: int, ids: SentIds = no_ids) -> Answer:
        """Returns the answer to one request; a failed one is an answer too.

        Args:
            body: NDJSON, packed as the endpoint wants it.
            count: records in it.
            ids: returns their `$insert_id`s.
        """
        body = self._endpoint.finish(body, self._token)
        outgoing = io.BytesIO(body)
        headers = {**self._headers, "Content-Length": str(len(body))}
        try:
            response = self._pool.urlopen(
                self._endpoint.method,
                self._target,
                body=outgoing,
                headers=headers,
                redirect=False,
                preload_content=False,
            )
            try:
                content = self._read(response)
            finally:
                response.release_conn()
        except (transport.HTTPError, OSError, zlib.error) as error:
            whole = outgoing.tell() == len(body)
            _let_go(error)
            return broken_answer(GivenUp() if self._connections.are_cut else error, whole=whole)
        received = {name.lower(): value for name, value in response.headers.items()}
        if _is_cut(response.status, received, content):
            return broken_answer(transport.ProtocolError())
        return self._endpoint.read(response.status, received, content, count, self._clock(), ids)

    def cut_off(self) -> None:
        """Ends all connections at once: who waits for an answer comes back without one."""
        self._connections.cut()

    def close(self) -> None:
        """Closes the pooled connections."""
        self._pool.close()

    def _read(self, response: urllib3.BaseHTTPResponse) -> bytes:
        """Returns the answer's body, as far as it is of a size that an answer can have."""
        ends = self._monotonic() + ANSWER_TIMEOUT_S
        parts, size = [], 0
        while part := response.read1(SEND_BYTES, decode_content=True):
            parts.append(part)
            size += len(part)
            if self._monotonic() > ends or size > MAX_ANSWER_BYTES:
                response.close()
                raise transport.ReadTimeoutError(self._pool, "", "the answer has no end")
        return b"".join(parts)


def _is_cut(status: int, headers: Mapping[str, str], content: bytes) -> bool:
    """Returns whether an answer ended before it told its length, which `http.client` takes for its end."""
    framed = headers.get("content-length", "").isdigit() or headers.get("transfer-encoding")
    return status in (200, 400) and not framed and not content.rstrip().endswith((b"}", b">"))


def tls_context() -> ssl.SSLContext:
    """Returns a context that verifies certificate and host name, whatever the environment says.

    `ssl.create_default_context` would also write the session's keys to the file that SSLKEYLOGFILE names.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs()
    return context


def _let_go(error: BaseException | None) -> None:
    """Forgets what the calls held through which an error was raised, as the body.

    In urllib3 an error and such a call hold each other, and so the body, for minutes: until the garbage
    collector comes to what is old.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
