"""Events that the service would refuse: one for each reason, and for each way to come by it."""

from typing import Any

from mixpanel_http import limits
from mixpanel_http.verdicts import Reason
from tests.events import GONE, NOW, event, line

DEEP: dict[str, Any] = {"a": {"b": {"c": {}}}}
REFUSED: dict[str, tuple[bytes, Reason, str | None]] = {
    "no JSON": (b"{'event': 1}", Reason.INVALID_JSON, None),
    "two objects": (line(event()) * 2, Reason.INVALID_JSON, None),
    "half an object": (line(event())[:-1], Reason.INVALID_JSON, None),
    "a byte order mark": (b"\xef\xbb\xbf" + line(event(x="\x01")), Reason.INVALID_JSON, None),
    "UTF-16": (line(event()).decode().encode("utf-16"), Reason.INVALID_UTF8, None),
    "a raw control character": (line(event(x="@")).replace(b"@", b"\x1f"), Reason.INVALID_JSON, None),
    "latin-1": (line(event(x="@")).replace(b"@", b"\xfc"), Reason.INVALID_UTF8, "properties.x"),
    "latin-1 in a name": (line(event(x="@", y=1)).replace(b'"y"', b'"\xfc"'), Reason.INVALID_UTF8, None),
    "latin-1 below": (line(event(x=["@"])).replace(b"@", b"\xfc"), Reason.INVALID_UTF8, None),
    "an array": (b"[" + line(event()) + b"]", Reason.NOT_OBJECT, None),
    "null": (b"null", Reason.NOT_OBJECT, None),
    "text": (b'"event"', Reason.NOT_OBJECT, None),
    "NaN": (line(event(x=float("nan"))), Reason.NON_FINITE_NUMBER, None),
    "-Infinity": (line(event(x=float("-inf"))), Reason.NON_FINITE_NUMBER, None),
    "half a character": (line(event(x="\ud83d")), Reason.LONE_SURROGATE, None),
    "halves in the wrong order": (line(event(x="\ude00\ud83d")), Reason.LONE_SURROGATE, None),
    "half a character in a name": (line(event(**{"\udc00": 1})), Reason.LONE_SURROGATE, None),
    "1,000,000 bytes": (
        line(event(x="")) + b" " * (1_000_000 - len(line(event(x="")))),
        Reason.TOO_LARGE,
        None,
    ),
    "1,000,000 bytes with ip": (
        line(event(ip=GONE, x="a" * (999_999 - len(line(event(ip=GONE, x="")))))),
        Reason.TOO_LARGE,
        None,
    ),
    "four levels": (line(event(x=DEEP)), Reason.TOO_DEEP, "properties.x"),
    "100,000 levels": (
        line(event(x=0)).replace(b":0", b":" + b"[" * 10**5 + b"]" * 10**5),
        Reason.TOO_DEEP,
        None,
    ),
    "100,000 levels that never end": (b"[" * 10**5, Reason.TOO_DEEP, None),
    "255 properties": (line(event(**{f"p{n}": n for n in range(251)})), Reason.TOO_MANY_KEYS, "properties"),
    "255 with the id": (
        line(event(**{f"p{n}": n for n in range(251)}, **{"$insert_id": GONE})),
        Reason.TOO_MANY_KEYS,
        "properties",
    ),
    "255 keys": (line(event(x={f"k{n}": n for n in range(255)})), Reason.TOO_MANY_KEYS, "properties.x"),
    "255 keys below": (
        line(event(x=[{f"k{n}": n for n in range(255)}])),
        Reason.TOO_MANY_KEYS,
        "properties.x",
    ),
    "255 elements": (line(event(x=[0] * 255)), Reason.ARRAY_TOO_LONG, "properties.x"),
    "255 elements below": (line(event(x={"y": [[0] * 255]})), Reason.ARRAY_TOO_LONG, "properties.x"),
    "no event": (line({"properties": event()["properties"]}), Reason.MISSING_EVENT, "event"),
    "event null": (line(event() | {"event": None}), Reason.MISSING_EVENT, "event"),
    "event of white space": (line(event() | {"event": " \u3000"}), Reason.MISSING_EVENT, "event"),
    "event a number": (line(event() | {"event": 5}), Reason.MISSING_EVENT, "event"),
    "event a number beyond all bounds": (
        line(event()).replace(b'"Signup"', b"1e999"),
        Reason.MISSING_EVENT,
        "event",
    ),
    "no properties": (b'{"event":"Signup"}', Reason.MISSING_PROPERTIES, "properties"),
    "properties null": (b'{"event":"Signup","properties":null}', Reason.MISSING_PROPERTIES, "properties"),
    "properties an array": (b'{"event":"Signup","properties":[]}', Reason.MISSING_PROPERTIES, "properties"),
    "no time": (line(event(time=GONE)), Reason.MISSING_TIME, "properties.time"),
    "time null": (line(event(time=None)), Reason.MISSING_TIME, "properties.time"),
    "time as text": (line(event(time="1700000000")), Reason.BAD_TIME, "properties.time"),
    "time a boolean": (line(event(time=True)), Reason.BAD_TIME, "properties.time"),
    "time an object": (line(event(time={"$date": 1})), Reason.BAD_TIME, "properties.time"),
    "time in 1970": (line(event(time=limits.MIN_TIME_S - 1)), Reason.BAD_TIME, "properties.time"),
    "time below zero": (line(event(time=-1_700_000_000)), Reason.BAD_TIME, "properties.time"),
    "time without bound below": (
        line(event()).replace(b"1700000000", b"-" + b"9" * 5000),
        Reason.BAD_TIME,
        "properties.time",
    ),
    "time in over an hour": (line(event(time=NOW + 3601)), Reason.FUTURE_TIME, "properties.time"),
    "ms in over an hour": (line(event(time=(NOW + 3601) * 1000)), Reason.FUTURE_TIME, "properties.time"),
    "time in microseconds": (line(event(time=NOW * 1_000_000)), Reason.FUTURE_TIME, "properties.time"),
    "time without bound": (
        line(event()).replace(b"1700000000", b"1e999"),
        Reason.FUTURE_TIME,
        "properties.time",
    ),
    "nobody": (line(event(distinct_id=GONE)), Reason.MISSING_DISTINCT_ID, "properties.distinct_id"),
    "null for a person": (
        line(event(distinct_id=None)),
        Reason.MISSING_DISTINCT_ID,
        "properties.distinct_id",
    ),
    "empty user": (
        line(event(distinct_id=GONE, **{"$user_id": ""})),
        Reason.MISSING_DISTINCT_ID,
        "properties.distinct_id",
    ),
    "user a number beyond all bounds": (
        line(event(distinct_id=GONE, **{"$user_id": 0})).replace(b":0", b":1e999"),
        Reason.MISSING_DISTINCT_ID,
        "properties.distinct_id",
    ),
    "a list of people": (line(event(distinct_id=["u"])), Reason.BAD_DISTINCT_ID, "properties.distinct_id"),
    "an object for a person": (
        line(event(distinct_id={"a": 1})),
        Reason.BAD_DISTINCT_ID,
        "properties.distinct_id",
    ),
    "zero for a person": (line(event(distinct_id=0)), Reason.DISALLOWED_ID, "properties.distinct_id"),
    "true for a person": (line(event(distinct_id=True)), Reason.DISALLOWED_ID, "properties.distinct_id"),
    "nothing in a list": (line(event(distinct_id=[])), Reason.DISALLOWED_ID, "properties.distinct_id"),
    "ANONYMOUS": (line(event(distinct_id="ANONYMOUS")), Reason.DISALLOWED_ID, "properties.distinct_id"),
    "unknown with a Kelvin sign": (
        line(event(distinct_id="un\u212anown")),
        Reason.DISALLOWED_ID,
        "properties.distinct_id",
    ),
    "$identify": (line(event() | {"event": "$identify"}), Reason.IDENTITY_EVENT, "event"),
}
