"""Holds blocks of events against the judge: each line's verdict and record are those that it has alone."""

from __future__ import annotations

from collections import Counter
from itertools import product

from mixpanel_http.event_blocks import prepare_events
from mixpanel_http.event_pieces import prepare_by_pieces
from mixpanel_http.event_rules import EventRules, IdentityModel, Place, check_event
from mixpanel_http.event_scan import IS_BUILT, prepare_by_scan
from mixpanel_http.insert_ids import InsertIdPolicy
from mixpanel_http.prepared import PreparedRecords
from mixpanel_http.verdicts import RecordRefused, Rejection
from tests.events import GONE, NOW, event, line, tokens

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

CLEAN = line(event())
NO_ID = line(event(**{"$insert_id": GONE}))
NO_IP = line(event(ip=GONE))
NEITHER = line(event(ip=GONE, **{"$insert_id": GONE}))
NEIGHBOURS = [CLEAN, NO_ID, NO_IP, NEITHER]
P = b'"time":1700000000,"distinct_id":"u"'  # properties that every event has to have


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
