"""The rules for one event: the documented cases, every reason for a refusal, and what is fixed and how."""

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixpanel_http import event_rules, limits
from mixpanel_http.event_rules import (
    DEFAULTED_IP,
    REPLACED_ID,
    STAMPED_ID,
    STRINGIFIED_ID,
    Accepted,
    EventRules,
    IdentityModel,
    check_event,
    is_time_in_range,
    is_valid_insert_id,
)
from mixpanel_http.insert_ids import InsertIdPolicy
from mixpanel_http.verdicts import Reason, RecordRefused
from tests.events import GIVEN_ID, GONE, NOW, event, line, tokens

CASES = Path(__file__).parent / "data" / "error-cases.jsonl"
# Cases about a request, not about one of its records; requests are tested where they are made and answered.
NOT_ABOUT_ONE_RECORD = {
    "exactly 2000 events": "how many records a request may hold",
    "2001 events in one request": "how many records a request may hold",
    "uncompressed body over 10 MB": "how large a request may be",
    "gzip body": "how a request is compressed",
    "NDJSON body, two lines": "how a request is laid out",
    "same event sent twice (same event, time, distinct_id, $insert_id)": "what becomes of two copies",
    "mixed batch: one good, one without time": "how the service answers if some fail",
    "wrong service-account secret": "who may send",
    "service account without project_id": "who may send",
    "project token as basic-auth user, empty password": "who may send",
    "ingestion rate exceeded": "how fast one may send",
}
LENIENT = "strict=0 with an empty event object"  # the one case of /import that is not about strict=1


def _cases() -> list[dict[str, Any]]:
    cases = [json.loads(text) for text in CASES.read_text(encoding="utf-8").splitlines()]
    return [case for case in cases if "/import" in case["endpoint"]]


def _about_one_record(verdict: str) -> list[Any]:
    return [
        pytest.param(case, id=case["case"])
        for case in _cases()
        if case["verdict"] == verdict and case["case"] not in {*NOT_ABOUT_ONE_RECORD, LENIENT}
    ]


def _record_of(case: dict[str, Any]) -> bytes:
    if "raw_line" in case["input"]:
        return str(case["input"]["raw_line"]).encode()
    return line(_expanded(case["input"])).replace(b"@invalid_utf8@", b"\xff")


def _expanded(value: Any) -> Any:
    """Returns a case's input with its placeholders filled in."""
    if isinstance(value, list):
        return [_expanded(item) for item in value]
    if isinstance(value, str):
        return _filled_in(value)
    if not isinstance(value, dict):
        return value
    wanted = value.get("@{fill_props_to}", 0)
    full = {_filled_in(key): _expanded(item) for key, item in value.items() if key != "@{fill_props_to}"}
    return full | {f"filler {n}": n for n in range(wanted - len(full))}


def _filled_in(text: str) -> Any:
    placeholder = re.fullmatch(r"@\{(\w+)(?::?)(.*)\}", text)
    if placeholder is None:
        return text
    kind, rest = placeholder.groups()
    fill: dict[str, Callable[[], Any]] = {
        "now_s": lambda: int(NOW) + int(rest),
        "now_ms": lambda: int(NOW) * 1000 + int(rest),
        "repeat": lambda: rest.split(":")[0] * int(rest.split(":")[1]),
        "array": lambda: [f"item {n}" for n in range(int(rest))],
        "object": lambda: {f"key {n}": n for n in range(int(rest))},
        "invalid_utf8": lambda: "@invalid_utf8@",
    }
    return fill[kind]()


def _rules_of(case: dict[str, Any]) -> EventRules:
    model: IdentityModel = "original" if case["case"].startswith("Original") else "simplified"
    return EventRules(identity=model)


def check(record: bytes, **rules: Any) -> Accepted:
    return check_event(record, EventRules(**rules), NOW)


def refusal(record: bytes, **rules: Any) -> RecordRefused:
    with pytest.raises(RecordRefused) as refused:
        check(record, **rules)
    return refused.value


def sent_properties(record: bytes, **rules: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(check(record, **rules).line)["properties"]
    return found


def test_every_documented_case_of_a_strict_import_is_accounted_for() -> None:
    strict = [case for case in _cases() if case["case"] != LENIENT]
    held = sum(len(_about_one_record(verdict)) for verdict in ("accept", "reject", "truncate"))

    assert len(strict) == 101
    assert held == 101 - len(NOT_ABOUT_ONE_RECORD) == 90
    assert {case["case"] for case in strict} > NOT_ABOUT_ONE_RECORD.keys()


@pytest.mark.parametrize("case", _about_one_record("accept") + _about_one_record("truncate"))
def test_a_documented_good_record_is_sent_as_it_is_but_for_ip(case: dict[str, Any]) -> None:
    record = _record_of(case)
    accepted = check_event(record, _rules_of(case), NOW)
    given, sent = tokens(record), tokens(accepted.line)

    is_stamped = "ip" not in given["properties"] and len(given["properties"]) < 254
    assert accepted.alterations == ((DEFAULTED_IP,) if is_stamped else ())
    assert sent["properties"] == given["properties"] | ({"ip": "int 0"} if is_stamped else {})
    assert sent["event"] == given["event"]


@pytest.mark.parametrize("case", _about_one_record("reject"))
def test_a_documented_bad_record_is_refused_or_its_insert_id_fixed(case: dict[str, Any]) -> None:
    record = _record_of(case)
    if case["field"] == "$insert_id":
        assert_insert_id_is_fixed(record)
        return

    with pytest.raises(RecordRefused) as refused:
        check_event(record, _rules_of(case), NOW)

    if case["field"]:
        assert bare(refused.value.field) == bare(case["field"])
    assert (case["message_contains"] or "") in refused.value.message


def bare(field: str | None) -> str:
    return (field or "").removeprefix("properties.")


def assert_insert_id_is_fixed(record: bytes) -> None:
    accepted = check(record)
    given, sent = tokens(record), tokens(accepted.line)

    assert is_valid_insert_id(sent["properties"]["$insert_id"])
    assert sent["properties"]["$insert_id"] == accepted.stamped_id
    assert REPLACED_ID in accepted.alterations or "$insert_id" not in given["properties"]
    assert sent["properties"] == given["properties"] | {"$insert_id": accepted.stamped_id, "ip": "int 0"}


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


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_service_would_refuse_is_refused_by_name(name: str) -> None:
    record, reason, field = REFUSED[name]
    refused = refusal(record)

    assert (refused.reason, refused.field) == (reason, field)
    assert refused.rejection(7).reason == reason.value


def test_each_reason_has_a_record_that_is_refused_for_it() -> None:
    source = inspect.getsource(event_rules)
    elsewhere = {"INSERT_ID_FIELDS_MISSING", "BAD_IDENTITY_EVENT"}  # they need rules other than the ordinary

    assert {reason.name for _, reason, _ in REFUSED.values()} == (
        set(re.findall(r"\bReason\.([A-Z0-9_]+)", source)) - elsewhere
    )


def test_an_id_of_fields_that_are_not_there_is_refused() -> None:
    policy = InsertIdPolicy("fields", ("order", "position"))
    refused = refusal(line(event(**{"$insert_id": GONE})), insert_id=policy)

    assert (refused.reason, refused.field) == (Reason.INSERT_ID_FIELDS_MISSING, "$insert_id")
    assert "order, position" in refused.message
    assert check(line(event(**{"$insert_id": GONE}, position=None)), insert_id=policy).stamped_id


@pytest.mark.parametrize("ids", [GONE, None, "ab", ["a"], ["a", "b", "c"], ["a", 5], {"a": "b"}])
def test_a_merge_is_of_two_ids(ids: Any) -> None:
    refused = refusal(line(event(**{"$distinct_ids": ids}) | {"event": "$merge"}), identity="original")

    assert (refused.reason, refused.field) == (Reason.BAD_IDENTITY_EVENT, "properties.$distinct_ids")


@pytest.mark.parametrize("verb", ["$identify", "$create_alias"])
def test_a_project_of_the_original_model_takes_identity_events(verb: str) -> None:
    record = line(event() | {"event": verb})

    assert check(record, identity="original").line == record


def test_a_project_of_the_original_model_wants_a_distinct_id_whoever_else_is_named() -> None:
    record = line(event(distinct_id=GONE, **{"$user_id": "u"}))

    assert check(record).line == record
    assert refusal(record, identity="original").reason is Reason.MISSING_DISTINCT_ID


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_no_value_of_the_record(name: str) -> None:
    secret = "tell-nobody-83f1"
    record = REFUSED[name][0].replace(b"user-1", secret.encode()).replace(b"136.24.0.114", secret.encode())
    refused = refusal(record.replace(b"Signup", secret.encode()).replace(GIVEN_ID.encode(), secret.encode()))

    assert secret not in str(refused)
    assert secret not in (refused.field or "")
    assert len(refused.message) < 400


@pytest.mark.parametrize("value", [b'"a', b"[secret]", b'"\\secret"', b"tru", b"0secret", b'{"a" secret}'])
def test_a_refusal_of_broken_syntax_tells_the_place_and_not_the_text(value: bytes) -> None:
    refused = refusal(line(event(x=0)).replace(b'"x":0', b'"x":' + value))

    assert re.search(r"\(byte \d+\)|truncated", refused.message)
    assert "secret" not in refused.message


@pytest.mark.parametrize("name", ["k" * 9000, "half \ud83d", "name\n", "\ufffe"])
def test_the_field_of_a_refusal_can_always_be_written_down(name: str) -> None:
    broken = line(event(**{name: "@"})).replace(b"@", b"\xff")
    refused = refusal(broken)

    assert refused.field is not None
    assert len(refused.field.encode()) <= len("properties.") + 255


def test_a_good_record_keeps_its_own_bytes() -> None:
    record = (
        b' {"properties" : {"ip":null,"\\u0074ime":1.7e9,"a":1.50,"a":-0,"distinct_id":"","$insert_id":"x"} ,'
        b'"event":"e", "extra" : [ ] }\t\r'
    )

    assert check(record) == Accepted(record.strip())


NUMBERS = [
    "12345678901234567890123",
    "1.10",
    "-0",
    "-0.0",
    "1E+2",
    "1e999",
    "0.1234567890123456789",
    "9" * 5000,
]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("shape", ["%s", "[%s]", '{"a":[%s,{"b":%s}]}'])
def test_a_changed_record_keeps_every_number_digit_for_digit(number: str, shape: str) -> None:
    value = shape.replace("%s", number)
    record = line(event(ip=GONE, x="@", **{"$insert_id": "not valid"})).replace(b'"@"', value.encode())
    sent = check(record).line

    assert value.encode() in sent
    assert tokens(sent)["properties"]["x"] == tokens(record)["properties"]["x"]


def test_a_changed_record_keeps_text_that_is_spelled_oddly() -> None:
    record = (
        b'{"event":"\\u0041\\/","x":"\\u0000","properties":{"time":1700000000,"distinct_id":"\\uD83D\\uDE00",'
        b'"\\u0061":"e\xcc\x81 \xc3\xa9 \xe2\x80\xa8","n":{"properties":{"$insert_id":1}}}}'
    )
    accepted = check(record)
    given = tokens(record)

    assert accepted.alterations == (STAMPED_ID, DEFAULTED_IP)
    assert tokens(accepted.line) == given | {
        "properties": given["properties"] | {"$insert_id": accepted.stamped_id, "ip": "int 0"}
    }


@pytest.mark.parametrize(
    ("token", "text"), [("7", "7"), ("1.50", "1.50"), ("1e999", "1e999"), ("9" * 5000, "9" * 5000)]
)
def test_a_numeric_distinct_id_becomes_text_digit_for_digit(token: str, text: str) -> None:
    record = line(event(distinct_id=0)).replace(b'"distinct_id":0', f'"distinct_id":{token}'.encode())
    accepted = check(record)

    assert json.loads(accepted.line)["properties"]["distinct_id"] == text
    assert accepted.alterations == (STRINGIFIED_ID,)


def test_a_whole_number_as_insert_id_becomes_text() -> None:
    accepted = check(line(event(**{"$insert_id": 28096095})))

    assert json.loads(accepted.line)["properties"]["$insert_id"] == "28096095"
    assert (accepted.stamped_id, accepted.alterations) == (None, (STRINGIFIED_ID,))


@pytest.mark.parametrize(
    "value", [None, True, 0, -1, 1.5, 10**40, "", "a b", "ä", "x" * 37, "Null", [], {"a": 1}]
)
def test_an_unusable_insert_id_is_replaced_by_one_of_the_content(value: Any) -> None:
    accepted = check(line(event(**{"$insert_id": value})))

    assert accepted.alterations == (REPLACED_ID,)
    assert re.fullmatch("[0-9a-f]{32}", json.loads(accepted.line)["properties"]["$insert_id"])


def test_an_id_that_is_replaced_still_tells_rows_apart() -> None:
    first, second = (check(line(event(**{"$insert_id": f"order_{n}"}))).stamped_id for n in (1, 2))

    assert first != second


@pytest.mark.parametrize("value", [None, 0, "", "1.2.3.4", False, []])
def test_an_ip_that_is_given_is_kept(value: Any) -> None:
    assert sent_properties(line(event(ip=value)))["ip"] == value


def test_ip_is_left_alone_if_asked() -> None:
    record = line(event(ip=GONE))

    assert check(record, default_ip=False) == Accepted(record)


@pytest.mark.parametrize("properties", [251, 252, 253])
def test_ip_is_added_only_where_there_is_room_for_it(properties: int) -> None:
    record = line(event(ip=GONE, **{f"p{n}": n for n in range(properties - 3)}))
    sent = sent_properties(record)

    assert ("ip" in sent) == (properties < 254)
    assert len(sent) == properties + 1


def test_254_properties_are_full() -> None:
    record = line(event(ip=GONE, **{f"p{n}": n for n in range(251)}))

    assert check(record).line == record


@pytest.mark.parametrize(
    "value", [[0] * 254, {str(n): n for n in range(254)}, [[[]]], {"a": {"b": [1, "{[" * 99]}}]
)
def test_containers_within_the_limits_are_sent(value: Any) -> None:
    record = line(event(x=value))

    assert check(record).line == record


def test_a_record_of_999_999_bytes_is_sent() -> None:
    record = line(event(x="a" * (999_999 - len(line(event(x=""))))))

    assert len(check(record).line) == 999_999


@pytest.mark.parametrize(
    "time", [31_536_000, 1.7e9, 1_700_000_000.5, NOW + 3600, 100_000_000_000, NOW * 1000]
)
def test_time_is_taken_in_seconds_and_milliseconds(time: float) -> None:
    assert is_time_in_range(time, NOW)
    assert sent_properties(line(event(time=time)))["time"] == time


@pytest.mark.parametrize(
    ("time", "kind"), [("1700000000", "text"), (True, "a boolean"), ([1.7e9], "an array")]
)
def test_a_time_of_another_kind_is_told_by_its_kind(time: Any, kind: str) -> None:
    assert refusal(line(event(time=time))).message.endswith(f"seconds since epoch, not as {kind}")


@pytest.mark.parametrize("value", sorted(limits.DISALLOWED_IDS))
def test_a_disallowed_value_is_no_insert_id_in_any_letter_case(value: str) -> None:
    assert not is_valid_insert_id(value)
    assert not is_valid_insert_id(value.upper())


@pytest.mark.parametrize("value", ["a", "A-9", "-", "x" * 36, GIVEN_ID])
def test_letters_digits_and_hyphens_are_an_insert_id(value: str) -> None:
    assert is_valid_insert_id(value)


@pytest.mark.parametrize("value", ["", "a\n", "٣", "a.b", "x" * 37, "é"])
def test_anything_else_is_no_insert_id(value: str) -> None:
    assert not is_valid_insert_id(value)
