"""Lists of refused records in the answers of /import: which records of the request they mean."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from mixpanel_http.answers import read_answer
from mixpanel_http.failure_table import AnswerClass
from mixpanel_http.refused_records import ids_of, no_ids
from tests.answers import GOOD, IDS, SENT, answer, refusal


def entries(chosen: Sequence[int], *keys: str) -> list[dict[str, object]]:
    made: dict[str, Any] = {"index": lambda i: i, "insert_id": IDS.__getitem__, "$insert_id": IDS.__getitem__}
    said = {"field": "properties.time", "message": "is invalid"}
    return [{**{key: made[key](i) for key in keys}, **said} for i in chosen]


KEYS = [("index", "insert_id"), ("index", "$insert_id"), ("index",), ("insert_id",), ("$insert_id",)]


@pytest.mark.parametrize("keys", KEYS, ids="+".join)
@pytest.mark.parametrize("bad", [1, 2, 100, 1999, 2000])
def test_exactly_the_listed_records_are_refused(bad: int, keys: tuple[str, ...]) -> None:
    chosen = random.Random(bad).sample(range(SENT), bad)

    read = answer(400, refusal(entries(chosen, *keys), SENT - bad))

    assert read.kind is AnswerClass.PARTIAL
    assert [r.index for r in read.refused] == sorted(chosen)
    assert {(r.field, r.message) for r in read.refused} == {("properties.time", "is invalid")}


@pytest.mark.parametrize("keys", KEYS[:3], ids="+".join)
def test_a_record_that_is_listed_twice_is_refused_once(keys: tuple[str, ...]) -> None:
    read = answer(400, refusal(entries([7, 3, 7], *keys), SENT - 2))

    assert [r.index for r in read.refused] == [3, 7]


def test_a_record_that_is_listed_twice_by_its_id_alone_is_refused_once() -> None:
    read = answer(400, refusal(entries([7, 3, 7], "insert_id"), SENT - 2))

    assert [r.index for r in read.refused] == [3, 7]


@pytest.mark.parametrize("beyond", [SENT, 10**9])
def test_an_entry_beyond_the_request_blames_nobody_where_the_others_add_up(beyond: int) -> None:
    listed = [*entries([5], "index"), {"index": beyond, "message": "?"}]

    assert [r.index for r in answer(400, refusal(listed, SENT - 1)).refused] == [5]
    assert answer(400, refusal(listed, SENT - 2)).kind is AnswerClass.RECORD


@pytest.mark.parametrize("index", [-1, 1.5, "1", None, True, [1]])
def test_an_index_that_is_none_makes_the_list_unusable(index: object) -> None:
    listed = [*entries([5], "index"), {"index": index, "message": "?"}]

    assert answer(400, refusal(listed, SENT - 2)).kind is AnswerClass.RECORD


def test_an_index_that_contradicts_the_id_gives_way_to_the_id() -> None:
    listed = [{"index": 6, "insert_id": "id-5", "message": "counted from one"}]

    assert [r.index for r in answer(400, refusal(listed, SENT - 1)).refused] == [5]


def test_an_id_that_was_never_sent_makes_the_list_unusable() -> None:
    listed = [{"index": 6, "insert_id": "another", "message": "?"}]

    assert answer(400, refusal(listed, SENT - 1)).kind is AnswerClass.RECORD


def test_identical_rows_share_an_id_and_are_refused_in_turn() -> None:
    ids = ["a", "same", "b", "same"]
    listed = [{"insert_id": "same", "message": "1"}, {"insert_id": "same", "message": "2"}]

    read = answer(400, refusal(listed, 2), sent=4, ids=ids)

    assert [(r.index, r.message) for r in read.refused] == [(1, "1"), (3, "2")]


def test_ids_are_asked_for_only_where_an_answer_names_some() -> None:
    def asked() -> Sequence[str | None]:
        raise AssertionError

    for status, body in ((200, GOOD), (400, refusal(entries([1], "index"), SENT - 1)), (429, {})):
        read_answer(status, {}, json.dumps(body).encode(), SENT, 0.0, asked)
    assert list(no_ids()) == []


def test_the_ids_of_a_body_are_read_in_order() -> None:
    body = b'{"event":"a","properties":{"$insert_id":"x","n":1e999}}\n{"properties":{"a":[1]},"event":""}'

    assert ids_of(body) == ["x", None]


def test_what_the_service_says_of_a_record_is_kept_short() -> None:
    read = answer(400, refusal([{"index": 1, "field": "f" * 9999, "message": "m" * 9999}], SENT - 1))

    assert len(read.refused[0].message) == len(read.refused[0].field or "") == 500
