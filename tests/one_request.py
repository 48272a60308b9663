"""One request over the HTTP client, and the token that it carries."""

from __future__ import annotations

from mixpanel_http.answers import Answer
from mixpanel_http.client import ImportClient
from mixpanel_http.destinations import Destination
from mixpanel_http.endpoints import compress
from mixpanel_http.secret_refs import SecretRef
from tests.loopback import http

TOKEN = "CANARY-TOKEN"
BODY = b'{"event":"a","properties":{"time":1,"distinct_id":"u","$insert_id":"i"}}'
OK = http(200, b'{"code":200,"num_records_imported":1,"status":"OK"}')


def client(url: str) -> ImportClient:
    """Returns a client of a server, whose token is that of `TEST_TOKEN`."""
    return ImportClient(Destination(url, SecretRef("env:TEST_TOKEN")), connections=2)


def send(url: str, body: bytes = BODY) -> Answer:
    """Returns the answer to one request over a client of its own."""
    sender = client(url)
    try:
        return sender.send(compress(body), 1)
    finally:
        sender.close()
