"""Blocks of events: whatever the lines, each has the verdict and becomes the record that it would alone."""

import json
from collections import Counter
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_http.event_blocks import prepare_events
from mixpanel_http.event_pieces import prepare_by_pieces
from mixpanel_http.event_rules import (
    DEFAULTED_IP,
    STAMPED_ID,
    EventRules,
    IdentityModel,
    Place,
    check_event,
)
from mixpanel_http.event_scan import IS_BUILT, prepare_by_scan
from mixpanel_http.insert_ids import InsertIdPolicy
from mixpanel_http.prepared import PreparedRecords
from mixpanel_http.verdicts import RecordRefused, Rejection
from tests.events import GIVEN_ID, GONE, NOW, event, line, tokens

POLICIES = [
    InsertIdPolicy("content"),
    InsertIdPolicy("line"),
    InsertIdPolicy("fields", ("event", "distinct_id", "a")),
    InsertIdPolicy("fields", ("a", "b")),
    InsertIdPolicy("content", identical_rows="keep"),
    InsertIdPolicy("line", identical_rows="keep"),
]
MODELS: list[IdentityModel] = ["simplified", "original"]
RULES = [
    EventRules(policy, identity, default_ip)
    for policy, identity, default_ip in product(POLICIES, MODELS, (True, False))
]
ORDINARY = EventRules()
WAYS = [prepare_by_pieces, *([prepare_by_scan] if IS_BUILT else [])]


def place(index: int) -> Place:
    return "events.json", 100 * index


def assert_each_line_is_judged_as_if_alone(raw: bytes, rules: EventRules) -> PreparedRecords:
    """Prepares a block in every way, holds each against the judge line by line, and returns the last."""
    for prepare in WAYS if raw else [prepare_events]:
        prepared = prepare(raw, rules, NOW, place)
        assert_is_as_judged(prepared, raw, rules)
    return prepared


def assert_is_as_judged(prepared: PreparedRecords, raw: bytes, rules: EventRules) -> None:
    lines = raw.removesuffix(b"\n").split(b"\n") if raw else []
    kept: list[int] = []
    records: list[bytes] = []
    rejections: list[Rejection] = []
    ids: list[str] = []
    alterations: Counter[str] = Counter()
    for index, text in enumerate(lines):
        if not text.strip(b" \t\r"):
            continue
        try:
            accepted = check_event(text, rules, NOW, place(index))
        except RecordRefused as refused:
            rejections.append(refused.rejection(index))
            continue
        kept.append(index)
        records.append(accepted.line)
        ids += [accepted.stamped_id] if accepted.stamped_id else []
        alterations.update(accepted.alterations)
    assert list(prepared.rejections) == rejections
    assert list(range(len(lines)) if prepared.kept is None else prepared.kept) == kept
    assert prepared.count == len(kept)
    assert prepared.blank == len(lines) - len(kept) - len(rejections)
    assert sorted(prepared.stamped_ids) == sorted(ids)
    assert prepared.alterations == alterations
    sent = prepared.body.split(b"\n") if prepared.body else []
    assert [tokens(record) for record in sent] == [tokens(record) for record in records]
    for index, record in zip(kept, sent, strict=True):
        assert_only_stamps_differ(lines[index], record)


def assert_only_stamps_differ(given: bytes, sent: bytes) -> None:
    before, after = tokens(given), tokens(sent)
    stamps = {"$insert_id", "ip", "distinct_id"}
    assert {k: v for k, v in after.items() if k != "properties"} == {
        k: v for k, v in before.items() if k != "properties"
    }
    assert {k: v for k, v in after["properties"].items() if k not in stamps} == {
        k: v for k, v in before["properties"].items() if k not in stamps
    }


# --- lines that are made to mislead -------------------------------------------------------------------------

CLEAN = line(event())
NO_ID = line(event(**{"$insert_id": GONE}))
NO_IP = line(event(ip=GONE))
NEITHER = line(event(ip=GONE, **{"$insert_id": GONE}))
NEIGHBOURS = [CLEAN, NO_ID, NO_IP, NEITHER]

_P = b'"time":1700000000,"distinct_id":"u"'
_FOUR = b'{"b":{"c":{"d":{},"x":1},"x":1},"x":1}'
_BAD = b'"time":5,"distinct_id":""'
ODD: list[Any] = [None, 0, 7, -1, 1.5, True, [], {}, "", "x" * 300]
ODD_PEOPLE = [*ODD, ["a"], "ANON", "ANONYMOUS", "un\u212anown", "\u0130" * 4, "[]"]
ODD_IDS = [*ODD, "a b", "NULL", "undefined", "Undefined", "é" * 12, "x" * 36]
ODD_TIMES = [*ODD, "1700000000", 31_535_999, 31_536_000, NOW + 3600, NOW + 3601, 5e9, 99_999_999_999]
ODD_TIMES += [10**11, NOW * 1e3, (NOW + 3601) * 1e3, 1.5e9]
ODD_NAMES = [*ODD, " \u2003", "$identify", "$merge", "$create_alias", "$Identify", "x" * 3000]
MISLEADING: dict[str, bytes] = {
    "opening in the name": b'{"event":"\\"properties\\":{","properties":{%b}}' % _P,
    "opening in a text before": b'{"a":"\\"properties\\":{","event":"e","properties":{%b}}' % _P,
    "opening in a text behind": b'{"event":"e","properties":{%b,"a":"\\"properties\\":{"}}' % _P,
    "a name that ends like it": b'{"x\\"properties":{"a":1},"event":"e","properties":{%b}}' % _P,
    "a list behind a space": b'{"event":"e","properties":{%b,"a" : [[[[1]]]]}}' % _P,
    "brace in the name": b'{"event":"{","properties":{%b}}' % _P,
    "brackets in texts": b'{"event":"[[[[","properties":{%b,"a":"}}}{{{]]]"}}' % _P,
    "nested before": b'{"a":{"properties":{"b":1}},"event":"e","properties":{%b}}' % _P,
    "nested in a list before": b'{"a":[{"properties":{"b":1}}],"event":"e","properties":{%b}}' % _P,
    "nested inside": b'{"event":"e","properties":{%b,"properties":{"time":1}}}' % _P,
    "nested and empty": b'{"event":"e","properties":{"properties":{},%b}}' % _P,
    "twice": b'{"event":"e","properties":{%b},"properties":{%b}}' % (_BAD, _P),
    "twice, the bad one last": b'{"event":"e","properties":{%b},"properties":{%b}}' % (_P, _BAD),
    "twice, once escaped": b'{"event":"e","properties":{%b,"z":1},"prop\\u0065rties":{%b}}' % (_P, _P),
    "twice, escaped first": b'{"event":"e","prop\\u0065rties":{%b},"properties":{%b,"z":1}}' % (_P, _P),
    "twice, escaped twice": b'{"event":"e","properties":{%b,"z":1},"\\u0070ropert\\u0069es":{%b}}' % (_P, _P),
    "escaped only": b'{"event":"e","\\u0070roperties":{%b}}' % _P,
    "twice, then none": b'{"event":"e","properties":{%b},"properties":null}' % _P,
    "twice, then a list": b'{"event":"e","properties":{%b},"prop\\u0065rties":[]}' % _P,
    "twice with a space": b'{"event":"e","properties":{%b,"z":1},"properties" :{%b}}' % (_P, _P),
    "spaces": b'{ "event" : "e" , "properties" : { %b } }' % _P,
    "a tab inside": b'{"event":"e","properties":\t{%b}}' % _P,
    "a space behind the brace": b'{"event":"e","properties":{ %b}}' % _P,
    "other letter case": b'{"event":"e","Properties":{},"properties":{%b}}' % _P,
    "properties first": b'{"properties":{%b},"event":"e"}' % _P,
    "event twice": b'{"event":"","properties":{%b},"event":"e"}' % _P,
    "event twice, the bad one last": b'{"event":"e","properties":{%b},"event":" "}' % _P,
    "event escaped": b'{"\\u0065vent":"e","properties":{%b}}' % _P,
    "time twice": b'{"event":"e","properties":{"time":"x",%b}}' % _P,
    "time twice, the bad one last": b'{"event":"e","properties":{%b,"t\\u0069me":5}}' % _P,
    "time escaped": b'{"event":"e","properties":{"\\u0074ime":1700000000,"distinct_id":"u"}}',
    "id escaped": b'{"event":"e","properties":{%b,"\\u0024insert_id":"abcdefghijkl"}}' % _P,
    "id escaped and bad": b'{"event":"e","properties":{%b,"$insert\\u005fid":"a b c d e f g"}}' % _P,
    "id twice": b'{"event":"e","properties":{%b,"$insert_id":"a","$insert_id":"_"}}' % _P,
    "id twice, the good one last": b'{"event":"e","properties":{%b,"$insert_id":"_","$insert_id":"a"}}' % _P,
    "id nested": b'{"event":"e","properties":{%b,"a":{"$insert_id":"abcdefghijkl"}}}' % _P,
    "id at the top": b'{"event":"e","$insert_id":"abcdefghijkl","properties":{%b}}' % _P,
    "ip escaped": b'{"event":"e","properties":{%b,"\\u0069p":1}}' % _P,
    "ip nested": b'{"event":"e","properties":{%b,"a":{"ip":1}}}' % _P,
    "ip null": b'{"event":"e","properties":{%b,"ip":null}}' % _P,
    "ip deep": b'{"event":"e","properties":{%b,"ip":[[[[]]]]}}' % _P,
    "a user, no distinct_id": b'{"event":"e","properties":{"time":1700000000,"$user_id":"u"}}',
    "a device, no distinct_id": b'{"event":"e","properties":{"time":1700000000,"$device_id":"\\u0061"}}',
    "neither user nor device": b'{"event":"e","properties":{"time":1700000000,"$device_id":"","$user_id":7}}',
    "a user, then none": b'{"event":"e","properties":{"time":1700000000,"$user_id":"u","$user_id":""}}',
    "a user, bad distinct_id": b'{"event":"e","properties":{%b,"$user_id":"u"}}' % _BAD,
    "name in another script": '{"event":"購入","properties":{%s}}'.replace("%s", _P.decode()).encode(),
    "name of wide blanks": '{"event":"\u3000\u2003\u00a0","properties":{%s}}'.replace(
        "%s", _P.decode()
    ).encode(),
    "solidus escaped": b'{"event":"e","properties":{%b,"a":"http:\\/\\/"}}' % _P,
    "quote escaped before": b'{"a":"\\\\","event":"e","properties":{%b}}' % _P,
    "unicode": line(event(a="\0", ip=GONE)).replace(b"Signup", "é\u2028\U0001f600".encode()),
    "two on a line": CLEAN + CLEAN,
    "two on a line, spaced": CLEAN + b" " + NO_IP,
    "two on a line, a comma between": CLEAN + b"," + CLEAN,
    "one over two lines": b'{"event":"e",\n"properties":{%b}}' % _P,
    "one over two lines, behind a brace": b'{"a":{}\n,"event":"e","properties":{%b}}' % _P,
    "one over two lines, between braces": b'{"a":[{}\n{}],"event":"e","properties":{%b}}' % _P,
    "one over two lines and two on one": b'{"event":"e","properties":{%b}\n}%b' % (_P, CLEAN),
    "blank": b"",
    "white space": b" \t ",
    "a form feed": b"\x0c",
    "a no-break space": b"\xc2\xa0",
    "CR": CLEAN + b"\r",
    "CR alone": b"\r",
    "CR without id": NEITHER + b"\r",
    "CR inside": b'{"event":"e",\r"properties":{%b}}' % _P,
    "spaces around": b"  " + NEITHER + b" \t",
    "BOM": b"\xef\xbb\xbf" + CLEAN,
    "BOM behind": CLEAN + b"\xef\xbb\xbf",
    "NUL": b"\0",
    "NUL inside": CLEAN.replace(b"Signup", b"\0"),
    "cut": CLEAN[:-1],
    "cut in a name": CLEAN[:20],
    "one brace too many": CLEAN + b"}",
    "a brace alone": b"}",
    "an opening alone": b"{",
    "half an event and its end": b'{"event":"e"\n,"properties":{%b}}' % _P,
    "an array": b"[" + CLEAN + b"]",
    "an array of events over lines": b"[\n" + CLEAN + b",\n" + CLEAN + b"\n]",
    "text": b'"x"',
    "a number": b"1",
    "null": b"null",
    "an empty object": b"{}",
    "empty properties": b'{"event":"e","properties":{}}',
    "invalid UTF-8": b'{"event":"e","properties":{%b,"a":"\xff"}}' % _P,
    "invalid UTF-8 in a name": b'{"event":"e","properties":{%b,"\xc3":"a"}}' % _P,
    "UTF-8 of a surrogate": b'{"event":"e","properties":{%b,"a":"\xed\xa0\x80"}}' % _P,
    "overlong UTF-8": b'{"event":"e","properties":{%b,"a":"\xc0\xaf"}}' % _P,
    "NaN": b'{"event":"e","properties":{%b,"a":NaN}}' % _P,
    "NaN for a time": b'{"event":"e","properties":{"time":NaN,"distinct_id":"u"}}',
    "Infinity": b'{"event":"e","properties":{%b,"a":-Infinity}}' % _P,
    "a lone surrogate": b'{"event":"e","properties":{%b,"a":"\\ud83d"}}' % _P,
    "a lone surrogate in a name": b'{"event":"e","properties":{%b,"\\udc00":1}}' % _P,
    "a pair of surrogates": b'{"event":"e","properties":{%b,"a":"\\ud83d\\ude00"}}' % _P,
    "a bad escape": b'{"event":"e","properties":{%b,"a":"\\x41"}}' % _P,
    "a leading zero": b'{"event":"e","properties":{%b,"a":01}}' % _P,
    "a trailing comma": b'{"event":"e","properties":{%b,}}' % _P,
    "a comment": b'{"event":"e","properties":{%b}/**/}' % _P,
    "single quotes": b"{'event':'e'}",
    "1e999": b'{"event":"e","properties":{%b,"a":1e999}}' % _P,
    "1e999 for a time": b'{"event":"e","properties":{"time":1e999,"distinct_id":"u"}}',
    "1e999 for a person": b'{"event":"e","properties":{"time":1700000000,"distinct_id":1e999}}',
    "1e999 for an id": b'{"event":"e","properties":{%b,"$insert_id":1e999}}' % _P,
    "1e999 for a name": b'{"event":1e999,"properties":{%b}}' % _P,
    "5,000 digits": b'{"event":"e","properties":{%b,"a":%b}}' % (_P, b"7" * 5000),
    "5,000 digits below zero": b'{"event":"e","properties":{%b,"a":[-%b]}}' % (_P, b"7" * 5000),
    "5,000 digits and an id": b'{"event":"e","properties":{%b,"a":%b,"$insert_id":"a"}}' % (_P, b"7" * 5000),
    "5,000 digits for a time": b'{"event":"e","properties":{"time":%b,"distinct_id":"u"}}' % (b"7" * 5000),
    "5,000 digits for an id": b'{"event":"e","properties":{%b,"$insert_id":%b}}' % (_P, b"7" * 5000),
    "5,000 digits and half a character": b'{"event":"e","properties":{%b,"b":"\\ud800%b","a":%b}}'
    % (_P, b"7" * 5000, b"7" * 5000),
    "5,000 digits and no JSON": b'{"event":"e","properties":{%b,"a":%b,}}' % (_P, b"7" * 5000),
    "5,000 digits behind the point": b'{"event":"e","properties":{%b,"a":0.%b}}' % (_P, b"7" * 5000),
    "20 digits": b'{"event":"e","properties":{%b,"a":18446744073709551616,"b":-0,"c":1.10E+2}}' % _P,
    "4 levels": b'{"event":"e","properties":{%b,"a":[[[[]]]]}}' % _P,
    "4 levels of objects": b'{"event":"e","properties":{%b,"a":{"b":{"c":{"d":{}}}}}}' % _P,
    "4 levels with more behind each": b'{"event":"e","properties":{%b,"a":%b,"x":1}}' % (_P, _FOUR),
    "3 levels": b'{"event":"e","properties":{%b,"a":{"b":[{}]}}}' % _P,
    "3 levels in a list of many": b'{"event":"e","properties":{%b,"a":[{"b":[1]},{"b":[2]},{"b":[3]}]}}' % _P,
    "500 levels": b'{"event":"e","properties":{%b,"a":%b}}' % (_P, b"[" * 500 + b"]" * 500),
    "100,000 levels": b'{"event":"e","properties":{%b,"a":%b}}' % (_P, b"[" * 10**5 + b"]" * 10**5),
    "100,000 objects deep": b'{"a":' * 10**5,
    "50 levels beside the properties": b'{"event":"e","a":%b,"properties":{%b}}'
    % (b"[" * 50 + b"]" * 50, _P),
    **{
        f"{n} elements": b'{"event":"e","properties":{%b,"a":[%b]}}' % (_P, b",".join([b"0"] * n))
        for n in (249, 250, 251, 254, 255, 256)
    },
    **{
        f"{n} short properties": line(event(ip=GONE, **{chr(40 + i): 0 for i in range(n - 3)}))
        for n in (245, 246, 247, 250, 251, 252, 253, 254, 255, 256)
    },
    **{
        f"{n} short properties without id": line(
            event(ip=GONE, **{"$insert_id": GONE}, **{chr(40 + i): 0 for i in range(n - 2)})
        )
        for n in (245, 250, 251, 252, 253, 254, 255)
    },
    "255 short keys": line(event(a={chr(40 + i): 0 for i in range(255)})),
    "255 times one property": b'{"event":"e","properties":{%b%b}}' % (_P, b',"a":0' * 255),
    "256 commas in a text": line(event(a="," * 2000)),
    "just below 1 MB": line(event(a="x" * (999_999 - len(line(event(a="")))))),
    "1 MB": line(event(a="x" * (1_000_000 - len(line(event(a="")))))),
    "1 MB with the stamps": line(
        event(ip=GONE, a="x" * (999_990 - len(line(event(a="", ip=GONE)))), **{"$insert_id": GONE})
    ),
    "half a MB": line(event(a="x" * 500_000, ip=GONE)),
    **{f"distinct_id {value!r}": line(event(distinct_id=value, ip=GONE)) for value in ODD_PEOPLE},
    **{f"$insert_id {value!r}": line(event(**{"$insert_id": value})) for value in ODD_IDS},
    **{f"$insert_id {n} letters": line(event(**{"$insert_id": "x" * n})) for n in (9, 10, 36, 37)},
    "$insert_id of hyphens": line(event(**{"$insert_id": "-" * 12})),
    "$insert_id of zeros": line(event(**{"$insert_id": "00000000-0000-0000-0000-000000000000"})),
    "$insert_id of other digits": line(event(**{"$insert_id": "٣" * 12})),
    **{f"time {value!r}": line(event(time=value)) for value in ODD_TIMES},
    **{f"event {value!r}": line(event() | {"event": value}) for value in ODD_NAMES},
    "no distinct_id, a device": line(event(distinct_id=GONE, **{"$device_id": "d"})),
    "no distinct_id, a number for a device": line(event(distinct_id=GONE, **{"$device_id": 5})),
    "no distinct_id": line(event(distinct_id=GONE)),
    "a merge": line(event(**{"$distinct_ids": ["a", "b"]}, distinct_id=GONE) | {"event": "$merge"}),
    "no time": line(event(time=GONE)),
    "no event": line({"properties": event()["properties"]}),
    "no properties": b'{"event":"e"}',
}


@pytest.mark.parametrize("name", MISLEADING)
def test_a_misleading_line_has_its_own_verdict_and_so_have_its_neighbours(name: str) -> None:
    odd = MISLEADING[name]
    for rules in RULES:
        assert_each_line_is_judged_as_if_alone(odd, rules)
        assert_each_line_is_judged_as_if_alone(odd + b"\n", rules)
    for neighbour, rules in product(NEIGHBOURS, RULES[:2] + RULES[-2:]):
        # As many lines that name no properties as the odd line names too many, so that it is one a line.
        evened = [b"1"] * (odd.count(b'"properties"') - 1)
        block = b"\n".join([neighbour, odd, *evened, neighbour, NO_ID])
        prepared = assert_each_line_is_judged_as_if_alone(block, rules)
        assert prepared.count >= 3


@pytest.mark.parametrize("rules", RULES, ids=repr)
def test_a_block_of_all_misleading_lines_is_no_different(rules: EventRules) -> None:
    small = [text for text in MISLEADING.values() if len(text) < 10_000]

    assert_each_line_is_judged_as_if_alone(b"\n".join(small), rules)


# --- lines that nobody thought of ---------------------------------------------------------------------------

SPACE = st.sampled_from(["", "", "", " ", "\t", "  ", "\r"])
NUMBERS = "0 -0 1 1.0 1.50 -1 1e5 1E+2 0.1234567890123456789 1e999 12345678901234567890 1e-7 5 1700000000000"
NUMBER = st.sampled_from(["1700000000", *NUMBERS.split()])
WORDS = "a b time event properties distinct_id $insert_id ip anon abcdefghijkl $identify $user_id { } [ , 0 /"
WORD = st.sampled_from(
    [*WORDS.split(), "", '"', "\\", '"properties":{', "é", "\u2028", "\U0001f600", "\0", "x" * 300]
)


@st.composite
def spelled(draw: st.DrawFn, words: st.SearchStrategy[str] = WORD) -> str:
    """A word as JSON text, in one of the ways to spell it."""
    word = draw(words)
    way = draw(st.sampled_from(["plain", "plain", "plain", "ascii", "first", "all"]))
    text = json.dumps(word, ensure_ascii=way == "ascii")
    if way == "plain" or not word or ord(word[0]) > 0xFFFF:
        return text
    escaped = [f"\\u{ord(c):04x}" if ord(c) <= 0xFFFF else c for c in word]
    if way == "all":
        return '"' + "".join(escaped) + '"'
    return '"' + escaped[0] + json.dumps(word[1:])[1:] if way == "first" else text


@st.composite
def written_object(draw: st.DrawFn, members: list[tuple[str, str]]) -> str:
    """Members as a JSON object, in one of the ways to write it."""
    gap, wide = draw(SPACE), draw(SPACE)
    return "{" + wide + f"{gap},{wide}".join(f"{k}{gap}:{wide}{v}" for k, v in members) + gap + "}"


def _lists(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]")


def _objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(st.tuples(spelled(), inner), max_size=3).flatmap(written_object)


SCALAR = spelled() | NUMBER | st.sampled_from(["true", "false", "null"])
VALUE = st.recursive(SCALAR, lambda inner: _lists(inner) | _objects(inner), max_leaves=6)
KEY = spelled()


@st.composite
def events(draw: st.DrawFn) -> bytes:
    """Mostly an event, mostly a good one; its members in any order, some twice, some spelled oddly."""
    usual = {
        "time": st.just("1700000000"),
        "distinct_id": st.just('"user-1"'),
        "$insert_id": st.just(f'"{GIVEN_ID}"'),
        "ip": st.just('"1.2.3.4"'),
    }
    properties = []
    for name, value in usual.items():
        fate = draw(st.sampled_from(["usual"] * (9 if name[0] in "td" else 2) + ["odd", "gone"]))
        if fate != "gone":
            key = draw(spelled(st.just(name))) if fate == "odd" else f'"{name}"'
            properties.append((key, draw(value if fate == "usual" else VALUE | value)))
    properties += draw(st.lists(st.tuples(KEY, VALUE), max_size=3))
    own = ("properties", '"properties"', draw(written_object(draw(st.permutations(properties)))))
    members = [('"event"', draw(st.just('"Signup"') | SCALAR)), own[1:]]
    if draw(st.booleans()):
        members = draw(st.permutations(members + draw(st.lists(st.tuples(KEY, VALUE), max_size=2))))
    return draw(written_object(list(members))).encode()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An event to which something happened."""
    text = draw(events())
    at, until = sorted(draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text)))))
    dirt = st.sampled_from(
        [b"", b"\n", b"\xff", b"\xef\xbb\xbf", b"NaN", b'"', b"}", b"{", b"\\", b"\r", b" "]
    )
    dirt |= st.sampled_from([b"\0", b"\\ud800", b",", b"}{", b"}\n{", b"]", b"0"])
    until = draw(st.sampled_from([at, min(at + 1, len(text)), until]))
    return text[:at] + draw(dirt) + text[until:]


BLANK = st.sampled_from([b"", b" ", b"\r"])
ANY_LINE = st.one_of(st.sampled_from(NEIGHBOURS), events(), events(), damaged(), BLANK)
ALIKE = st.sampled_from(NEIGHBOURS).flatmap(lambda text: st.lists(st.just(text), min_size=1, max_size=3))
BLOCK = st.one_of(
    st.lists(ANY_LINE, max_size=5),
    st.lists(events(), max_size=5),
    st.tuples(ALIKE, events(), ALIKE).map(lambda parts: [*parts[0], parts[1], *parts[2]]),
)


def assert_blocks_are_judged_line_by_line(lines: list[bytes], rules: EventRules, ending: bytes) -> None:
    assert_each_line_is_judged_as_if_alone(b"\n".join(lines) + ending, rules)


@settings(max_examples=800, deadline=None)
@given(BLOCK, st.sampled_from(RULES), st.sampled_from([b"", b"\n", b"\r\n"]))
def test_any_block_is_judged_line_by_line(lines: list[bytes], rules: EventRules, ending: bytes) -> None:
    assert_blocks_are_judged_line_by_line(lines, rules, ending)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@settings(max_examples=50_000, deadline=None)
@given(BLOCK, st.sampled_from(RULES), st.sampled_from([b"", b"\n", b"\r\n"]))
def test_very_many_blocks_are_judged_line_by_line(
    lines: list[bytes], rules: EventRules, ending: bytes
) -> None:
    assert_blocks_are_judged_line_by_line(lines, rules, ending)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=4), st.sampled_from(RULES))
def test_noise_is_refused_line_by_line(lines: list[bytes], rules: EventRules) -> None:
    assert_blocks_are_judged_line_by_line([CLEAN, *lines, NO_IP], rules, b"\n")


# --- the ways of a block ------------------------------------------------------------------------------------


def test_a_clean_block_leaves_as_the_bytes_that_came() -> None:
    spaced = b'{ "event" :"\\u0041", "properties":\t{%b, "$insert_id":"a-1", "ip" : [1e999]}}' % _P
    block = b"\n".join([CLEAN, spaced, CLEAN])

    assert prepare_events(block + b"\n", ORDINARY, NOW) == PreparedRecords(block, 3)


def test_ip_is_put_into_a_whole_block_at_once() -> None:
    block = b"\n".join([NO_IP] * 3)
    expected = block.replace(b"}}", b',"ip":0}}')

    assert prepare_events(block, ORDINARY, NOW) == PreparedRecords(
        expected, 3, alterations=Counter({DEFAULTED_IP: 3})
    )


def test_a_stamp_goes_behind_the_other_properties_and_moves_nothing() -> None:
    prepared = prepare_events(NEITHER, ORDINARY, NOW)
    (made,) = prepared.stamped_ids

    assert prepared.body == NEITHER.replace(b"}}", b',"$insert_id":"%b","ip":0}}' % made.encode())
    assert prepared.alterations == {STAMPED_ID: 1, DEFAULTED_IP: 1}


@pytest.mark.parametrize(
    "line",
    [
        b'{"properties":{%b},"event":"e"}' % _P,
        b'{"event":"e","properties":{%b} }' % _P,
        b'{"event":"e","properties":{%b},"x":{"a":{}}}' % _P,
    ],
    ids=["properties first", "a blank at the end", "another object behind"],
)
def test_where_the_properties_do_not_end_the_line_a_stamp_goes_before_them(line: bytes) -> None:
    prepared = prepare_by_pieces(line, ORDINARY, NOW)
    (made,) = prepared.stamped_ids

    assert prepared.body == line.replace(
        b'"properties":{', b'"properties":{"$insert_id":"%b","ip":0,' % made.encode()
    )


@pytest.mark.parametrize(
    ("raw", "blank"), [(b"", 0), (b"\n", 1), (b"\n\n", 2), (b" \n\t", 2), (b"\r\n\r\n", 2)]
)
def test_a_block_of_blank_lines_holds_no_record(raw: bytes, blank: int) -> None:
    assert prepare_events(raw, ORDINARY, NOW) == PreparedRecords(b"", 0, kept=(), blank=blank)


def test_identical_rows_share_an_id_unless_they_are_to_be_kept() -> None:
    block = b"\n".join([NEITHER, NO_IP, NEITHER])
    merged = prepare_events(block, EventRules(InsertIdPolicy()), NOW, place).stamped_ids
    kept = prepare_events(block, EventRules(InsertIdPolicy(identical_rows="keep")), NOW, place).stamped_ids

    assert len(merged) == len(kept) == 2
    assert len(set(merged)) == 1
    assert len(set(kept)) == 2


def test_preparing_again_changes_nothing_more() -> None:
    small: list[Any] = [text for text in MISLEADING.values() if len(text) < 10_000]
    once = prepare_events(b"\n".join(small), ORDINARY, NOW)

    again = prepare_events(once.body, ORDINARY, NOW)

    assert (again.count, again.rejections, again.stamped_ids) == (once.count, (), ())
    assert again.alterations[DEFAULTED_IP] == 0
