"""Blocks of events: what is put into a block and where, and what leaves as the bytes that came."""

from collections import Counter

import pytest

from mixpanel_http.event_blocks import prepare_events
from mixpanel_http.event_pieces import prepare_by_pieces
from mixpanel_http.event_rules import DEFAULTED_IP, STAMPED_ID, EventRules
from mixpanel_http.insert_ids import InsertIdPolicy
from mixpanel_http.prepared import PreparedRecords
from tests.event_blocks import CLEAN, NEITHER, NO_IP, ORDINARY, P, place
from tests.events import NOW


def test_a_clean_block_leaves_as_the_bytes_that_came() -> None:
    spaced = b'{ "event" :"\\u0041", "properties":\t{%b, "$insert_id":"a-1", "ip" : [1e999]}}' % P
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
        b'{"properties":{%b},"event":"e"}' % P,
        b'{"event":"e","properties":{%b} }' % P,
        b'{"event":"e","properties":{%b},"x":{"a":{}}}' % P,
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
