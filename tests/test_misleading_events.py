"""Lines that are made to mislead: each has its own verdict and record, and so have those around it."""

from itertools import product
from typing import Any

import pytest

from mixpanel_http.event_blocks import prepare_events
from mixpanel_http.event_rules import DEFAULTED_IP, EventRules
from tests.event_blocks import (
    CLEAN,
    NEIGHBOURS,
    NEITHER,
    NO_ID,
    NO_IP,
    ORDINARY,
    RULES,
    P,
    assert_each_line_is_judged_as_if_alone,
)
from tests.events import GONE, NOW, event, line

FEW = RULES[:2] + RULES[-2:]
_FOUR = b'{"b":{"c":{"d":{},"x":1},"x":1},"x":1}'
_BAD = b'"time":5,"distinct_id":""'
ODD: list[Any] = [None, 0, 7, -1, 1.5, True, [], {}, "", "x" * 300]
ODD_PEOPLE = [*ODD, ["a"], "ANON", "ANONYMOUS", "un\u212anown", "\u0130" * 4, "[]"]
ODD_IDS = [*ODD, "a b", "NULL", "undefined", "Undefined", "é" * 12, "x" * 36]
ODD_TIMES = [*ODD, "1700000000", 31_535_999, 31_536_000, NOW + 3600, NOW + 3601, 5e9, 99_999_999_999]
ODD_TIMES += [10**11, NOW * 1e3, (NOW + 3601) * 1e3, 1.5e9]
ODD_NAMES = [*ODD, " \u2003", "$identify", "$merge", "$create_alias", "$Identify", "x" * 3000]
MISLEADING: dict[str, bytes] = {
    "opening in the name": b'{"event":"\\"properties\\":{","properties":{%b}}' % P,
    "opening in a text before": b'{"a":"\\"properties\\":{","event":"e","properties":{%b}}' % P,
    "opening in a text behind": b'{"event":"e","properties":{%b,"a":"\\"properties\\":{"}}' % P,
    "a name that ends like it": b'{"x\\"properties":{"a":1},"event":"e","properties":{%b}}' % P,
    "a list behind a space": b'{"event":"e","properties":{%b,"a" : [[[[1]]]]}}' % P,
    "brace in the name": b'{"event":"{","properties":{%b}}' % P,
    "brackets in texts": b'{"event":"[[[[","properties":{%b,"a":"}}}{{{]]]"}}' % P,
    "nested before": b'{"a":{"properties":{"b":1}},"event":"e","properties":{%b}}' % P,
    "nested in a list before": b'{"a":[{"properties":{"b":1}}],"event":"e","properties":{%b}}' % P,
    "nested inside": b'{"event":"e","properties":{%b,"properties":{"time":1}}}' % P,
    "nested and empty": b'{"event":"e","properties":{"properties":{},%b}}' % P,
    "twice": b'{"event":"e","properties":{%b},"properties":{%b}}' % (_BAD, P),
    "twice, the bad one last": b'{"event":"e","properties":{%b},"properties":{%b}}' % (P, _BAD),
    "twice, once escaped": b'{"event":"e","properties":{%b,"z":1},"prop\\u0065rties":{%b}}' % (P, P),
    "twice, escaped first": b'{"event":"e","prop\\u0065rties":{%b},"properties":{%b,"z":1}}' % (P, P),
    "twice, escaped twice": b'{"event":"e","properties":{%b,"z":1},"\\u0070ropert\\u0069es":{%b}}' % (P, P),
    "escaped only": b'{"event":"e","\\u0070roperties":{%b}}' % P,
    "twice, then none": b'{"event":"e","properties":{%b},"properties":null}' % P,
    "twice, then a list": b'{"event":"e","properties":{%b},"prop\\u0065rties":[]}' % P,
    "twice with a space": b'{"event":"e","properties":{%b,"z":1},"properties" :{%b}}' % (P, P),
    "spaces": b'{ "event" : "e" , "properties" : { %b } }' % P,
    "a tab inside": b'{"event":"e","properties":\t{%b}}' % P,
    "a space behind the brace": b'{"event":"e","properties":{ %b}}' % P,
    "other letter case": b'{"event":"e","Properties":{},"properties":{%b}}' % P,
    "properties first": b'{"properties":{%b},"event":"e"}' % P,
    "event twice": b'{"event":"","properties":{%b},"event":"e"}' % P,
    "event twice, the bad one last": b'{"event":"e","properties":{%b},"event":" "}' % P,
    "event escaped": b'{"\\u0065vent":"e","properties":{%b}}' % P,
    "time twice": b'{"event":"e","properties":{"time":"x",%b}}' % P,
    "time twice, the bad one last": b'{"event":"e","properties":{%b,"t\\u0069me":5}}' % P,
    "time escaped": b'{"event":"e","properties":{"\\u0074ime":1700000000,"distinct_id":"u"}}',
    "id escaped": b'{"event":"e","properties":{%b,"\\u0024insert_id":"abcdefghijkl"}}' % P,
    "id escaped and bad": b'{"event":"e","properties":{%b,"$insert\\u005fid":"a b c d e f g"}}' % P,
    "id twice": b'{"event":"e","properties":{%b,"$insert_id":"a","$insert_id":"_"}}' % P,
    "id twice, the good one last": b'{"event":"e","properties":{%b,"$insert_id":"_","$insert_id":"a"}}' % P,
    "id nested": b'{"event":"e","properties":{%b,"a":{"$insert_id":"abcdefghijkl"}}}' % P,
    "id at the top": b'{"event":"e","$insert_id":"abcdefghijkl","properties":{%b}}' % P,
    "ip escaped": b'{"event":"e","properties":{%b,"\\u0069p":1}}' % P,
    "ip nested": b'{"event":"e","properties":{%b,"a":{"ip":1}}}' % P,
    "ip null": b'{"event":"e","properties":{%b,"ip":null}}' % P,
    "ip deep": b'{"event":"e","properties":{%b,"ip":[[[[]]]]}}' % P,
    "a user, no distinct_id": b'{"event":"e","properties":{"time":1700000000,"$user_id":"u"}}',
    "a device, no distinct_id": b'{"event":"e","properties":{"time":1700000000,"$device_id":"\\u0061"}}',
    "neither user nor device": b'{"event":"e","properties":{"time":1700000000,"$device_id":"","$user_id":7}}',
    "a user, then none": b'{"event":"e","properties":{"time":1700000000,"$user_id":"u","$user_id":""}}',
    "a user, bad distinct_id": b'{"event":"e","properties":{%b,"$user_id":"u"}}' % _BAD,
    "name in another script": '{"event":"購入","properties":{%s}}'.replace("%s", P.decode()).encode(),
    "name of wide blanks": '{"event":"\u3000\u2003\u00a0","properties":{%s}}'.replace(
        "%s", P.decode()
    ).encode(),
    "solidus escaped": b'{"event":"e","properties":{%b,"a":"http:\\/\\/"}}' % P,
    "quote escaped before": b'{"a":"\\\\","event":"e","properties":{%b}}' % P,
    "unicode": line(event(a="\0", ip=GONE)).replace(b"Signup", "é\u2028\U0001f600".encode()),
    "two on a line": CLEAN + CLEAN,
    "two on a line, spaced": CLEAN + b" " + NO_IP,
    "two on a line, a comma between": CLEAN + b"," + CLEAN,
    "one over two lines": b'{"event":"e",\n"properties":{%b}}' % P,
    "one over two lines, behind a brace": b'{"a":{}\n,"event":"e","properties":{%b}}' % P,
    "one over two lines, between braces": b'{"a":[{}\n{}],"event":"e","properties":{%b}}' % P,
    "one over two lines and two on one": b'{"event":"e","properties":{%b}\n}%b' % (P, CLEAN),
    "blank": b"",
    "white space": b" \t ",
    "a form feed": b"\x0c",
    "a no-break space": b"\xc2\xa0",
    "CR": CLEAN + b"\r",
    "CR alone": b"\r",
    "CR without id": NEITHER + b"\r",
    "CR inside": b'{"event":"e",\r"properties":{%b}}' % P,
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
    "half an event and its end": b'{"event":"e"\n,"properties":{%b}}' % P,
    "an array": b"[" + CLEAN + b"]",
    "an array of events over lines": b"[\n" + CLEAN + b",\n" + CLEAN + b"\n]",
    "text": b'"x"',
    "a number": b"1",
    "null": b"null",
    "an empty object": b"{}",
    "empty properties": b'{"event":"e","properties":{}}',
    "invalid UTF-8": b'{"event":"e","properties":{%b,"a":"\xff"}}' % P,
    "invalid UTF-8 in a name": b'{"event":"e","properties":{%b,"\xc3":"a"}}' % P,
    "UTF-8 of a surrogate": b'{"event":"e","properties":{%b,"a":"\xed\xa0\x80"}}' % P,
    "overlong UTF-8": b'{"event":"e","properties":{%b,"a":"\xc0\xaf"}}' % P,
    "NaN": b'{"event":"e","properties":{%b,"a":NaN}}' % P,
    "NaN for a time": b'{"event":"e","properties":{"time":NaN,"distinct_id":"u"}}',
    "Infinity": b'{"event":"e","properties":{%b,"a":-Infinity}}' % P,
    "a lone surrogate": b'{"event":"e","properties":{%b,"a":"\\ud83d"}}' % P,
    "a lone surrogate in a name": b'{"event":"e","properties":{%b,"\\udc00":1}}' % P,
    "a pair of surrogates": b'{"event":"e","properties":{%b,"a":"\\ud83d\\ude00"}}' % P,
    "a bad escape": b'{"event":"e","properties":{%b,"a":"\\x41"}}' % P,
    "a leading zero": b'{"event":"e","properties":{%b,"a":01}}' % P,
    "a trailing comma": b'{"event":"e","properties":{%b,}}' % P,
    "a comment": b'{"event":"e","properties":{%b}/**/}' % P,
    "single quotes": b"{'event':'e'}",
    "1e999": b'{"event":"e","properties":{%b,"a":1e999}}' % P,
    "1e999 for a time": b'{"event":"e","properties":{"time":1e999,"distinct_id":"u"}}',
    "1e999 for a person": b'{"event":"e","properties":{"time":1700000000,"distinct_id":1e999}}',
    "1e999 for an id": b'{"event":"e","properties":{%b,"$insert_id":1e999}}' % P,
    "1e999 for a name": b'{"event":1e999,"properties":{%b}}' % P,
    "5,000 digits": b'{"event":"e","properties":{%b,"a":%b}}' % (P, b"7" * 5000),
    "5,000 digits below zero": b'{"event":"e","properties":{%b,"a":[-%b]}}' % (P, b"7" * 5000),
    "5,000 digits and an id": b'{"event":"e","properties":{%b,"a":%b,"$insert_id":"a"}}' % (P, b"7" * 5000),
    "5,000 digits for a time": b'{"event":"e","properties":{"time":%b,"distinct_id":"u"}}' % (b"7" * 5000),
    "5,000 digits for an id": b'{"event":"e","properties":{%b,"$insert_id":%b}}' % (P, b"7" * 5000),
    "5,000 digits and half a character": b'{"event":"e","properties":{%b,"b":"\\ud800%b","a":%b}}'
    % (P, b"7" * 5000, b"7" * 5000),
    "5,000 digits and no JSON": b'{"event":"e","properties":{%b,"a":%b,}}' % (P, b"7" * 5000),
    "5,000 digits behind the point": b'{"event":"e","properties":{%b,"a":0.%b}}' % (P, b"7" * 5000),
    "20 digits": b'{"event":"e","properties":{%b,"a":18446744073709551616,"b":-0,"c":1.10E+2}}' % P,
    "4 levels": b'{"event":"e","properties":{%b,"a":[[[[]]]]}}' % P,
    "4 levels of objects": b'{"event":"e","properties":{%b,"a":{"b":{"c":{"d":{}}}}}}' % P,
    "4 levels with more behind each": b'{"event":"e","properties":{%b,"a":%b,"x":1}}' % (P, _FOUR),
    "3 levels": b'{"event":"e","properties":{%b,"a":{"b":[{}]}}}' % P,
    "3 levels in a list of many": b'{"event":"e","properties":{%b,"a":[{"b":[1]},{"b":[2]},{"b":[3]}]}}' % P,
    "500 levels": b'{"event":"e","properties":{%b,"a":%b}}' % (P, b"[" * 500 + b"]" * 500),
    "100,000 levels": b'{"event":"e","properties":{%b,"a":%b}}' % (P, b"[" * 10**5 + b"]" * 10**5),
    "100,000 objects deep": b'{"a":' * 10**5,
    "50 levels beside the properties": b'{"event":"e","a":%b,"properties":{%b}}' % (b"[" * 50 + b"]" * 50, P),
    **{
        f"{n} elements": b'{"event":"e","properties":{%b,"a":[%b]}}' % (P, b",".join([b"0"] * n))
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
    "255 times one property": b'{"event":"e","properties":{%b%b}}' % (P, b',"a":0' * 255),
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
    for rules in FEW:
        assert_each_line_is_judged_as_if_alone(odd + b"\n", rules)
    for neighbour, rules in product(NEIGHBOURS, FEW):
        # As many lines that name no properties as the odd line names too many, so that it is one a line.
        evened = [b"1"] * (odd.count(b'"properties"') - 1)
        block = b"\n".join([neighbour, odd, *evened, neighbour, NO_ID])
        prepared = assert_each_line_is_judged_as_if_alone(block, rules)
        assert prepared.count >= 3


@pytest.mark.parametrize("rules", RULES, ids=repr)
def test_a_block_of_all_misleading_lines_is_no_different(rules: EventRules) -> None:
    small = [text for text in MISLEADING.values() if len(text) < 10_000]

    assert_each_line_is_judged_as_if_alone(b"\n".join(small), rules)


def test_preparing_again_changes_nothing_more() -> None:
    small: list[Any] = [text for text in MISLEADING.values() if len(text) < 10_000]
    once = prepare_events(b"\n".join(small), ORDINARY, NOW)

    again = prepare_events(once.body, ORDINARY, NOW)

    assert (again.count, again.rejections, again.stamped_ids) == (once.count, (), ())
    assert again.alterations[DEFAULTED_IP] == 0


@pytest.mark.parametrize("size", [(1 << 19) - 1, 1 << 19, (1 << 20) - 1, 1 << 20])
def test_a_line_without_end_is_refused_for_its_size_first(size: int) -> None:
    assert_each_line_is_judged_as_if_alone(b'{"a":"'.ljust(size, b"x"), ORDINARY)
