"""Records that carry their own kind, in every form that people have them in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mixpanel_http.endpoints import ROUTES
from mixpanel_http.event_rules import EventRules
from mixpanel_http.identity_rules import IdentityRules
from mixpanel_http.insert_ids import InsertIdPolicy
from mixpanel_http.mixed_records import MixedRules, PrepareMixed, message_of, without_token
from mixpanel_http.profile_rules import ProfileRules
from mixpanel_http.records import event, group_set, merge, people_increment, people_set

NOW = 1_750_000_000.0
RULES = MixedRules(
    EventRules(default_ip=False, identity="original"), ProfileRules(default_ip=False, ignore_time=False)
)
EVENT = event("u", "Signup", 1_700_000_000, {"token": "T"}, insert_id="id-1")
USER: dict[str, Any] = {"$token": "T", **people_set("u", {"plan": "pro"})}
GROUP = group_set("company", "acme", {"size": 3})
MERGE = merge("a", "b")


def dumps(value: object) -> bytes:
    return json.dumps(value).encode()


def forms(endpoint: str, message: dict[str, Any]) -> list[bytes]:
    """Returns a message in the three forms that a line may have."""
    return [
        dumps([endpoint, message]),
        b'["%b",%b]' % (endpoint.encode(), json.dumps(message, separators=(",", ":")).encode()),
        endpoint.encode() + b"::" + dumps(message),
        dumps(message),
    ]


@pytest.mark.parametrize(
    ("endpoint", "message", "sort"),
    [
        ("events", EVENT, "events"),
        ("imports", EVENT, "events"),
        ("events", MERGE, "identity"),
        ("imports", MERGE, "identity"),
        ("people", USER, "people"),
        ("people", {"$distinct_id": "u", "$delete": ""}, "people"),
        ("groups", GROUP, "groups"),
    ],
)
def test_every_form_tells_kind_and_message(endpoint: str, message: dict[str, Any], sort: str) -> None:
    for line in forms(endpoint, message):
        found = message_of(line)
        assert (found.sort, json.loads(found.body)) == (sort, message)


@pytest.mark.parametrize(
    "line",
    [b'["clicks",{"event":"a"}]', b'clicks::{"event":"a"}', b'{"plan":"pro"}', b"people::", b'["people",]'],
)
def test_what_says_no_kind_is_refused_and_said_why(line: bytes) -> None:
    (refused,) = PrepareMixed()(line, RULES, NOW).rejections

    assert refused.reason == "unknown_kind"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'["people",{"$distinct_id":"u"', "invalid_json"),
        (b'["people",{"$distinct_id":"u"},1]', "invalid_json"),
        (b'people::{"$distinct_id":"u"}', "missing_operation"),
        (b'["people",{"$distinct_id":"","$set":{}}]', "missing_distinct_id"),
        (b'events::{"event":"a","properties":{}}', "missing_time"),
        (b'["groups",{"$group_id":"g","$set":{}}]', "missing_group"),
        (b"nonsense", "invalid_json"),
        (b"\xff", "invalid_utf8"),
        (b'["people","text"]', "not_object"),
    ],
)
def test_each_message_is_judged_by_the_rules_of_its_kind(line: bytes, reason: str) -> None:
    prepared = PrepareMixed()(line, RULES, NOW)

    assert [refused.reason for refused in prepared.rejections] == [reason]


def test_a_block_keeps_the_order_of_its_lines_and_tells_the_route_of_each() -> None:
    lines = [
        dumps(["people", USER]),
        b"",
        b"groups::" + dumps(GROUP),
        b'["people",{}]',
        dumps(EVENT),
        dumps(["people", people_increment("u", {"n": 1})]),
        dumps(["imports", MERGE]),
    ]
    prepared = PrepareMixed()(b"\n".join(lines) + b"\n", RULES, NOW)
    names = [(ROUTES[route].endpoint.name, ROUTES[route].repeatable) for route in prepared.routes]

    assert names == [
        ("people", True),
        ("groups", True),
        ("events", True),
        ("people", False),
        ("events", True),
    ]
    assert prepared.kept == (0, 2, 4, 5, 6)
    assert (prepared.blank, [r.index for r in prepared.rejections]) == (1, [3])
    assert prepared.refused == {"people": 1}
    records = [json.loads(line) for line in prepared.body.split(b"\n")]
    assert records[0] == people_set("u", {"plan": "pro"})
    assert "T" not in prepared.body.decode()
    keys = [prepared.keys[8 * i : 8 * i + 8] for i in range(5)]
    assert keys[0] == keys[3] != keys[2]


def test_rows_kept_apart_are_so_by_their_own_places() -> None:
    policy = InsertIdPolicy(identical_rows="keep")
    rules = MixedRules(EventRules(policy), identity=IdentityRules())
    same = dumps(["events", event("u", "Signup", 1_700_000_000)])
    raw = b"\n".join([dumps(["people", USER]), same, same])
    ids = PrepareMixed()(raw, rules, NOW, lambda index: ("file", index)).stamped_ids

    assert len(set(ids)) == 2


@pytest.mark.parametrize("message", [EVENT, USER, GROUP], ids=str)
def test_no_token_is_left_wherever_the_sdk_writes_it(message: dict[str, Any]) -> None:
    for line in forms("people", message)[:3]:
        assert b"T" not in without_token(line).replace(b"Signup", b"")
    assert json.loads(without_token(b"people::" + dumps(USER))) == [
        "people",
        people_set("u", {"plan": "pro"}),
    ]
    assert without_token(dumps(EVENT)) == dumps(EVENT)  # a property of its own name may be the customer's
    assert b'"T"' not in without_token(b'people::{"$token": "T", "$dist')
