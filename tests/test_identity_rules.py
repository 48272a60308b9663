"""The rules of identity records: what links nobody is refused, as Mixpanel would not say so."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from mixpanel_http.identity_rules import Clusters, IdentityRules, PrepareIdentity, check_identity
from mixpanel_http.records import alias, identify, merge
from mixpanel_http.verdicts import RecordRefused

DEVICE = "0b1f6c3e-7a55-4c9e-9d0e-3b3f5f3f2a11"


def line(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode()


@pytest.mark.parametrize("record", [identify("u", DEVICE), alias("jane", "u"), merge("a", "b")], ids=str)
def test_a_good_record_passes_byte_for_byte(record: dict[str, Any]) -> None:
    assert check_identity(line(record), IdentityRules(), Clusters()) == line(record)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"event": "Signup", "properties": {}}, "bad_identity_event"),
        ({"event": "$merge"}, "bad_identity_event"),
        (merge("a", ""), "bad_identity_event"),
        ({"event": "$merge", "properties": {"$distinct_ids": ["a", "b", "c"]}}, "bad_identity_event"),
        ({"event": "$merge", "properties": {"$distinct_ids": ["a", 7]}}, "bad_identity_event"),
        (identify("u", "no-uuid"), "bad_identity_event"),
        (identify("", DEVICE), "bad_identity_event"),
        (identify("undefined", DEVICE), "disallowed_id"),
        (alias("", "u"), "bad_identity_event"),
        ({"event": "$create_alias", "properties": {"distinct_id": "u"}}, "bad_identity_event"),
    ],
    ids=str,
)
def test_what_would_link_nobody_is_refused(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordRefused) as refused:
        check_identity(line(record), IdentityRules(), Clusters())

    assert refused.value.reason.value == reason


def test_a_project_with_simplified_identity_takes_none_of_them() -> None:
    with pytest.raises(RecordRefused) as refused:
        check_identity(line(merge("a", "b")), IdentityRules("simplified"), Clusters())

    assert refused.value.reason.value == "identity_event"


def test_an_id_that_a_cluster_cannot_hold_is_refused_also_blocks_later() -> None:
    prepare = PrepareIdentity()
    star = [line(merge("hub", f"id-{n}")) for n in range(499)]
    first = prepare(b"\n".join(star[:250]), IdentityRules(), 0.0)
    second = prepare(b"\n".join(star[250:]), IdentityRules(), 0.0)
    more = [merge("id-3", "one-too-many"), merge("id-1", "id-2"), merge("x", "y")]
    third = prepare(b"\n".join(map(line, more)), IdentityRules(), 0.0)

    assert (first.count, second.count) == (250, 249)
    assert [(r.index, r.reason) for r in third.rejections] == [(0, "cluster_full")]
    assert third.kept == (1, 2)


def test_a_worker_starts_without_memory() -> None:
    prepare = PrepareIdentity()
    prepare(b"\n".join(line(merge("hub", f"id-{n}")) for n in range(499)), IdentityRules(), 0.0)
    fresh = pickle.loads(pickle.dumps(prepare))

    assert fresh(line(merge("hub", "another")), IdentityRules(), 0.0).count == 1


def test_blank_lines_are_no_records_and_a_token_is_left_out() -> None:
    record = {"event": "$merge", "properties": {"$distinct_ids": ["a", "b"], "token": "T"}}
    prepared = PrepareIdentity()(b"\n" + line(record) + b"\n \n", IdentityRules(), 0.0)

    assert (prepared.blank, prepared.kept) == (2, (1,))
    assert json.loads(prepared.body) == merge("a", "b")
