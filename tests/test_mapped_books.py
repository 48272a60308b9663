"""The books of mapped records close by property, whatever a map makes of lines and the service of records."""

import json
from collections import Counter

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_http.event_rules import EventRules
from mixpanel_http.receipts import Receipt
from mixpanel_http.verdicts import Reason, RecordRefused
from record_maps.mapper import Mapper
from record_maps.paths import Fields
from record_maps.spec import EventNames, Filtered, MapSpec, Reshaped, TimeSpec, parse_value
from tests.ledgers import NOW
from transforms.elements import Block, BlockOutcome, EncodedBlock, Span
from transforms.encode_requests import encode_requests
from transforms.map_records import map_block
from transforms.prepare_records import prepare_block
from transforms.settle_block import settle_block


def reshape(fields: Fields) -> list[Reshaped]:
    """Makes of a line what it says itself: records, good or bad, what is left out, and what is refused."""
    made: list[Reshaped] = []
    for number, kind in enumerate(json.loads(bytes(fields["makes"]))):
        if kind == "filtered":
            made.append(Filtered("test"))
        elif kind == "refused":
            made.append(RecordRefused(Reason.MAP_FAILED, None, "as told"))
        else:
            record = {"e": kind, "t": 1_709_627_400, "u": "anon" if kind == "banned" else f"u{number}"}
            made.append({name: msgspec.Raw(json.dumps(value).encode()) for name, value in record.items()})
    return made


SPEC = MapSpec(
    event=parse_value("e"),
    time=TimeSpec(parse_value("t")),
    distinct_id=parse_value("u"),
    events=EventNames(deny=("denied",)),
    reshape=reshape,
)
KINDS = st.sampled_from(["good", "good", "denied", "banned", "filtered", "refused"])
LINES = st.lists(st.lists(KINDS, max_size=4) | st.sampled_from(["blank", "broken"]), min_size=1, max_size=12)
FATES = st.sampled_from(["imported", "undelivered", "not_attempted"])


class Service:
    """Settles each request by the fates that a test gives, the last of them for all that come behind."""

    def __init__(self, fates: list[str]) -> None:
        self._fates = fates

    def deliver(self, body: bytes, count: int, compressed: bytes | None = None) -> Receipt:
        """Returns the request's fate."""
        receipt = Receipt()
        receipt.settle(0, count, self._fates.pop(0) if len(self._fates) > 1 else self._fates[0])
        return receipt


def line_of(makes: list[str] | str) -> bytes:
    if isinstance(makes, str):
        return {"blank": b"  ", "broken": b"{"}[makes]
    return json.dumps({"makes": makes}).encode()


def settled(lines: list[bytes], cut: int, fates: list[str], per_request: int) -> BlockOutcome:
    raw = b"".join(line + b"\n" for line in lines)
    sizes = [sum(len(line) + 1 for line in part) for part in (lines[:cut], lines[cut:])]
    spans = (Span(0, "a", cut, sizes[0], 1, 0), Span(1, "b", len(lines) - cut, sizes[1], 1, 0))
    block = Block("0", "a", 0, raw, tuple(span for span in spans if span.lines))
    prepared = prepare_block(map_block(block, Mapper(SPEC)), EventRules(), NOW)
    requests = tuple(encode_requests(prepared.records, per_request, 1 << 20))
    return settle_block(EncodedBlock(prepared.block, prepared.records, requests), Service(fates))


@settings(deadline=None)
@given(LINES, st.data(), st.lists(FATES, min_size=1, max_size=4), st.integers(1, 5))
def test_the_books_close_in_each_file(
    lines: list[list[str] | str], data: st.DataObject, fates: list[str], per_request: int
) -> None:
    cut = data.draw(st.integers(0, len(lines)))
    outcome = settled([line_of(makes) for makes in lines], cut, list(fates), per_request)
    tally = outcome.tally

    for part, own in enumerate((lines[:cut], lines[cut:])):
        counts = tally.parts[part]
        records = [makes for makes in own if makes != "blank"]
        made = Counter(kind for makes in own if isinstance(makes, list) for kind in makes)
        assert counts.balanced
        assert counts.read == len(records)
        assert counts.expanded == sum(
            len(makes) - 1 for makes in records if isinstance(makes, list) and makes
        )
        assert counts.filtered == made["denied"] + made["filtered"] + own.count([])
        assert counts.dead_lettered == made["banned"] + made["refused"] + own.count("broken")
    assert sum(tally.by_filter.values()) == tally.total.filtered
    assert len(outcome.dead_letters) == tally.total.dead_lettered
    assert len(outcome.undelivered) == tally.total.undelivered


@settings(deadline=None)
@given(LINES)
def test_each_letter_holds_the_line_that_it_is_about(lines: list[list[str] | str]) -> None:
    raws = [line_of(makes) for makes in lines]
    outcome = settled(raws, len(raws), ["imported"], 2000)

    for letter in map(json.loads, outcome.dead_letters):
        makes = lines[letter["source"]["line"] - 1]
        if isinstance(makes, list):
            assert letter["record"] == {"makes": makes}
            assert makes[letter["output"]] in ("banned", "refused")
