"""Talking to the emulator over a real socket, as little dressed up as can be."""

import base64
import gzip
import http.client
import json
import socket
import time
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.processes import PATIENCE_S

NDJSON = "application/x-ndjson"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


def connect(url: str) -> socket.socket:
    """Returns a bare connection to the emulator."""
    address = urlsplit(url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=PATIENCE_S)


class Reply(NamedTuple):
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def basic(user: str, password: str = "") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def call(
    url: str,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float = PATIENCE_S,
) -> Reply:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def send(
    url: str,
    records: list[Any],
    *,
    query: str = "strict=1",
    media_type: str = NDJSON,
    compressed: bool = False,
    authorization: str = basic("PROJECT_TOKEN"),
) -> Reply:
    """Imports records (bytes are sent as they are)."""
    lines = [record if isinstance(record, bytes) else json.dumps(record).encode() for record in records]
    body = b"\n".join(lines) if media_type == NDJSON else b"[" + b",".join(lines) + b"]"
    headers = {"Content-Type": media_type, "Authorization": authorization}
    if compressed:
        body, headers["Content-Encoding"] = gzip.compress(body, 1), "gzip"
    return call(url, "POST", f"/import?{query}", body, headers)


def event(number: int = 0, **properties: Any) -> dict[str, Any]:
    """Returns an event that is accepted."""
    fixed = {"time": 1700000000 + number, "distinct_id": f"user-{number % 7}", "$insert_id": f"id-{number}"}
    return {"event": "Signup", "properties": {**fixed, **properties}}


def recent(**properties: Any) -> dict[str, Any]:
    """Returns an event for /track."""
    fixed = {"token": "PROJECT_TOKEN", "time": int(time.time()) - 60, "distinct_id": "user-1"}
    return {"event": "Signup", "properties": {**fixed, **properties}}
