"""Mixpanel's endpoints that take records, and what differs between them: one small value each.

A request's body is NDJSON everywhere in this project, so that it can be cut at its lines. What an endpoint
wants in its place is made in two steps: `pack` ahead of time, without any secret, and `finish` by the client,
which alone holds the project's token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from isal import isal_zlib

from mixpanel_http import limits
from mixpanel_http.answers import Answer, read_answer
from mixpanel_http.refused_records import SentIds, ids_of
from mixpanel_http.update_answers import read_update_answer

GZIP_LEVEL: Final = 1  # isal's: 0.7 CPU-s per million events where zlib's best costs ten times that

ReadAnswer = Callable[[int, Mapping[str, str], bytes, int, float, SentIds], Answer]


def compress(body: bytes) -> bytes:
    """Returns a request's body gzipped; the same bytes give the same result."""
    return bytes(isal_zlib.compress(body, GZIP_LEVEL, 31))


def as_it_is(body: bytes) -> bytes:
    """Returns the body."""
    return body


def as_packed(packed: bytes, token: str) -> bytes:
    """Returns the body as it was packed: who sends is told in a header."""
    return packed


def stamped_array(body: bytes, token: str) -> bytes:
    r"""Returns NDJSON as a JSON array with the project's token in each record.

    >>> stamped_array(b'{"a":1}\n{"b":2}', "T")
    b'[{"$token":"T","a":1},\n{"$token":"T","b":2}]'
    """
    head = b'{"$token":%b,' % json.dumps(token).encode()
    return b"[" + head + body[1:].replace(b"\n{", b",\n" + head) + b"]"


def no_ids_of(body: bytes) -> Sequence[str | None]:
    """Returns nothing: updates have no id by which an answer could name them."""
    return ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where records of a kind are sent, and how.

    Attributes:
        name: as reports call it; the names are those of the official SDK.
        path: the URL's path.
        query: what is asked of the service with each request.
        headers: of each request.
        most_records: that it takes in a request.
        in_records: whether the project's token stands in each record, and not in a header.
        pack: makes the bytes that wait to be sent from NDJSON.
        finish: makes the bytes on the wire from these and the token.
        read: reads an answer.
        ids_of: returns the ids by which an answer may name the records of a body.
        method: of each request.
    """

    name: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: tuple[tuple[str, str], ...]
    most_records: int
    in_records: bool
    pack: Callable[[bytes], bytes]
    finish: Callable[[bytes, str], bytes]
    read: ReadAnswer
    ids_of: Callable[[bytes], Sequence[str | None]]
    method: str = "POST"


EVENTS: Final = Endpoint(
    name="events",
    path="/import",
    query=(("strict", "1"),),
    headers=(("Content-Type", "application/x-ndjson"), ("Content-Encoding", "gzip")),
    most_records=limits.MAX_RECORDS_PER_REQUEST,
    in_records=False,
    pack=compress,
    finish=as_packed,
    read=read_answer,
    ids_of=ids_of,
)


def _updates(name: str, path: str, most_records: int) -> Endpoint:
    # Not gzipped: the reference of /engage says that it is not supported, though an SDK sends it.
    return Endpoint(
        name=name,
        path=path,
        query=(("strict", "1"), ("verbose", "1")),
        headers=(("Content-Type", "application/json"),),
        most_records=most_records,
        in_records=True,
        pack=as_it_is,
        finish=stamped_array,
        read=read_update_answer,
        ids_of=no_ids_of,
    )


PEOPLE: Final = _updates("people", "/engage", limits.MAX_UPDATES_PER_REQUEST)
GROUPS: Final = _updates("groups", "/groups", limits.GROUPS_PER_REQUEST)


class Route(NamedTuple):
    """How a record is sent.

    Attributes:
        endpoint: where to.
        repeatable: whether it may be sent a second time where the first may have got through.
    """

    endpoint: Endpoint
    repeatable: bool = True


TO_EVENTS: Final = 0
TO_PEOPLE: Final = 1
TO_PEOPLE_ONCE: Final = 2
TO_GROUPS: Final = 3
ROUTES: Final = (Route(EVENTS), Route(PEOPLE), Route(PEOPLE, repeatable=False), Route(GROUPS))
