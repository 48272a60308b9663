"""Requests that nobody should send, generated from a seed."""

import gzip
import json
import random
from typing import Any
from urllib.parse import quote, quote_from_bytes

from tests.emulator.talk import basic, event

PATHS = [
    *("/import", "/import?strict=0", "/import?strict=1&verbose=1", "/track", "/track?verbose=1", "/engage"),
    *("/engage?strict=1", "/groups", "/lookup-tables/x?project_id=1", "/lookup-tables", "/api/2.0/export"),
    *("/api/query/events", "/api/query/segmentation", "/api/query/engage", "/api/query/events/names"),
    *("/api/app/projects/1/schemas", "/api/app/projects/1/schemas/event/x", "/_emulator/stats?quick=1"),
    *("/_emulator/records?limit=3", "/_emulator/faults", "/", "/nothing"),
]
QUERIES = [
    *(
        "from_date=2024-01-01&to_date=2024-01-02",
        "from_date=%FF&to_date=0000-00-00",
        "event=[1,2]",
        "event=[[[",
        "limit=-5",
    ),
    *(
        "limit=1e9",
        "event=x&where=" + "(" * 300,
        "where=properties[%22a%22]==",
        "event=x&on=" + "not%20" * 50 + "true",
    ),
    *(
        "page=999999999999999999999&session_id=1",
        "interval=99999999999",
        "from_date=9999-12-31&to_date=9999-12-31",
    ),
    *(
        "data=" + "A" * 99,
        "data=%7B%7D",
        "callback=%0d%0ax",
        "distinct_ids={}",
        "output_properties=5",
        "unit=aeon",
    ),
    *(
        "event=x&from_date=0001-01-01&to_date=2024-01-01&unit=month",
        "kind=none",
        "offset=abc",
        "strict=&verbose=",
    ),
]
TYPES = [
    "application/json",
    "application/x-ndjson",
    "application/x-www-form-urlencoded",
    "text/csv",
    "",
    "\xff",
]
ENCODINGS = ["", "", "gzip", "br", "gzip, gzip"]


def make_request(seed: int) -> bytes:
    """Returns the bytes of one request, or of what is to pass for one."""
    dice = random.Random(seed)
    kind = dice.randrange(10)
    if kind == 0:
        return dice.randbytes(dice.randrange(1, 3000))
    body = _body(dice)
    head = _head(dice, len(body) + (dice.choice([-3, 40, 10**6]) if kind == 1 else 0))
    request = head + body
    if kind == 2:
        return request[: dice.randrange(len(request))]
    if kind == 3:
        return _damaged(dice, request)
    return request


def _head(dice: random.Random, length: int) -> bytes:
    path = dice.choice(PATHS)
    if dice.random() < 0.4:
        path += ("&" if "?" in path else "?") + dice.choice(QUERIES)
    if dice.random() < 0.05:
        path = "/" + quote_from_bytes(dice.randbytes(20)) + "%" * dice.randrange(3)
    method = (
        "PUT"
        if path.startswith("/lookup-tables/")
        else "GET"
        if "export" in path or "names" in path
        else "POST"
    )
    if dice.random() < 0.2:
        method = dice.choice(["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
    lines = [
        f"{method} {path} HTTP/1.{dice.choice('11110')}",
        "Host: x",
        f"Authorization: {_credentials(dice)}",
    ]
    lines += [f"Content-Type: {dice.choice(TYPES)}", f"Content-Encoding: {dice.choice(ENCODINGS)}"]
    lines += [f"Content-Length: {max(0, length)}"] if dice.random() < 0.95 else ["Transfer-Encoding: chunked"]
    if dice.random() < 0.03:
        lines += [f"X-{number}: {'y' * 1000}" for number in range(dice.choice([10, 200]))]
    if dice.random() < 0.03:
        lines += ["Expect: 100-continue", "Connection: Upgrade", "Upgrade: websocket"]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")


def _credentials(dice: random.Random) -> str:
    return dice.choice([basic("token")] * 8 + [basic("u", "p"), "Basic \xff\xfe", "Bearer", "Basic ====", ""])


def _body(dice: random.Random) -> bytes:
    body = dice.choice(_BODIES)(dice)
    if dice.random() < 0.3:
        body = gzip.compress(body, 1)
    return _damaged(dice, body) if dice.random() < 0.2 else body


def _damaged(dice: random.Random, content: bytes) -> bytes:
    place = dice.randrange(len(content) + 1)
    return content[:place] + dice.randbytes(dice.randrange(6)) + content[place + dice.randrange(6) :]


def _nested(dice: random.Random) -> bytes:
    deep = dice.choice([10, 900, 100_000])
    opening = dice.choice([b"[", b'{"a":', b'{"event":"e","properties":{"x":'])
    return dice.choice([b"", b"[", b'[{"event":"e"},']) + opening * deep


def _values(dice: random.Random) -> bytes:
    values: list[Any] = [
        *(
            None,
            True,
            0,
            -1,
            1e308,
            "",
            "x" * 300,
            [],
            {},
            [[]],
            {"a": []},
            "\ud800",
            "\0",
            2**70,
            ["y"] * 300,
        ),
        {f"k{n}": n for n in range(300)},
    ]
    names = [
        "time",
        "distinct_id",
        "$insert_id",
        "$user_id",
        "$device_id",
        "token",
        "$ignore",
        "$distinct_ids",
        "\ud800",
    ]
    record = event(dice.randrange(10**6))
    for _ in range(dice.randrange(4)):
        record["properties"][dice.choice(names)] = dice.choice(values)
    record["event"] = dice.choice(["e", "$merge", "$identify", "$create_alias", *values])
    return json.dumps(
        dice.choice([record, [record], {"event": record}, [[record]], [record, 5, None]])
    ).encode()


def _updates(dice: random.Random) -> bytes:
    operations = ["$set", "$set_once", "$add", "$union", "$append", "$remove", "$unset", "$delete"]
    values: list[Any] = [
        None,
        5,
        "x",
        [],
        {},
        {"a": 1},
        {"a": [1]},
        {"a": {"b": [1]}},
        {"a": None},
        ["a"],
        {"a": 2**63},
        [{}],
        {"a": 1e308},
    ]
    update = {
        "$token": dice.choice(["t", "", 5, None]),
        dice.choice(["$distinct_id", "$group_id"]): dice.choice(["u", "", 7, [], None, "\ud800"]),
        "$group_key": dice.choice(["k", 1, {}]),
    }
    for _ in range(dice.randrange(1, 3)):
        update[dice.choice(operations)] = dice.choice(values)
    return json.dumps([update] * dice.randrange(1, 4)).encode()


def _forms(dice: random.Random) -> bytes:
    inner = dice.choice([_values, _updates, _nested])(dice)
    return f"data={quote(inner.decode('latin-1'))}&verbose=1&api_key=k".encode() + dice.choice(
        [b"", b"&" * 2000, b"&data=x"]
    )


def _others(dice: random.Random) -> bytes:
    return dice.choice(
        [
            b"",
            b"\n" * 3000,
            b"id,f\n" + b'"' * 50,
            b"id,f\n" + dice.randbytes(100),
            b" " * 12_000_000,
            b'[{"name":"n","do":{"status":99999}}]',
            b'{"entries":[{"entityType":1,"name":[],"schemaJson":5}]}',
            b'{"metadata":{"com.mixpanel":5}}',
            b'{"page":"x","where":5,"distinct_ids":7}',
            b"\xef\xbb\xbf[]",
            b"\x00" * 1000,
            b"1" * 5000,
            dice.randbytes(5000),
        ]
    )


_BODIES = [_values, _values, _updates, _updates, _nested, _forms, _others]
