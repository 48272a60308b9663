"""The rules for one event: what is sent as it is, and what is fixed and how."""

import json
import re
from typing import Any

import pytest

from mixpanel_http import limits
from mixpanel_http.event_rules import (
    DEFAULTED_IP,
    REPLACED_ID,
    STAMPED_ID,
    STRINGIFIED_ID,
    Accepted,
    is_time_in_range,
    is_valid_insert_id,
)
from tests.event_checks import check, refusal, sent_properties
from tests.events import GIVEN_ID, GONE, NOW, event, line, tokens


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
