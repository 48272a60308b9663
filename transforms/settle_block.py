"""What became of every record of a block, once its requests are sent: outcomes by file, and letters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from msgspec import structs

from mixpanel_http.crash_points import crash_point
from mixpanel_http.receipts import Receipt
from mixpanel_http.record_syntax import BLANK
from mixpanel_http.verdicts import Rejection
from transforms import drain
from transforms.dead_letters import dead_letters, sent_insert_id
from transforms.elements import Block, BlockOutcome, EncodedBlock, EncodedRequest, block_lines
from transforms.letters import LetterLines
from transforms.part_counts import Column
from transforms.tally import Tally


class Delivers(Protocol):
    """What sends a request and accounts for it; `Deliverer` in production."""

    def deliver(self, body: bytes, count: int, compressed: bytes | None = None) -> Receipt:
        """Returns what became of `count` records."""
        ...


def settle_block(encoded: EncodedBlock, delivers: Delivers | None) -> BlockOutcome:
    """Returns what became of every record of a block, after sending its requests one after the other.

    Args:
        encoded: the block.
        delivers: sends a request; None sends nothing and leaves the records as not attempted.
    """
    crash_point("before requests")
    tally = Tally()
    stop = None
    refused: list[tuple[Rejection, str | None]] = []
    undelivered: list[tuple[Rejection, str | None]] = []
    for request in encoded.requests:
        receipt = (
            delivers.deliver(request.body, request.count, request.compressed)
            if delivers
            else Receipt(not_attempted=request.count, ranges=[(0, request.count, "not_attempted")])
        )
        stop = stop or receipt.stop
        refused += _by_line(encoded, request, receipt.rejections)
        undelivered += _by_line(encoded, request, list(_undelivered(receipt)))
        _count(tally, encoded, request, receipt)
    crash_point("after requests")
    block, records = encoded.block, encoded.records
    tally.lines = block.lines
    tally.alterations.update(records.alterations)
    unmapped = block.mapped.rejections if block.mapped else ()
    count_refusals(tally, block, [*unmapped, *records.rejections, *(rejection for rejection, _ in refused)])
    count_read(tally, block, records.blank)
    count_mapped(tally, block)
    letters = (
        dead_letters(block, unmapped, "map"),
        dead_letters(block, records.rejections, "prepare"),
        _letters(block, refused),
    )
    return BlockOutcome(
        block.segment,
        block.attempt,
        block.ordinal,
        tally,
        LetterLines.joined(letters),
        records.stamped_ids,
        block.notes,
        block.end,
        stop,
        _letters(block, undelivered),
        block.provisional,
    )


class GivenUp:
    """Delivers nothing: a thread is stuck with it, and whatever it finds out comes too late."""

    def deliver(self, _body: bytes, count: int, _compressed: bytes | None = None) -> Receipt:
        """Returns that the records are undelivered."""
        receipt = Receipt(last_problem=drain.TOO_LATE)
        receipt.settle(0, count, "undelivered")
        return receipt


def _letters(block: Block, rejections: list[tuple[Rejection, str | None]]) -> LetterLines:
    return dead_letters(block, [r for r, _ in rejections], "import", [i for _, i in rejections])


def _undelivered(receipt: Receipt) -> Iterator[Rejection]:
    """Yields what a letter says of each undelivered record: nothing against it, only what went wrong last."""
    if not receipt.undelivered:
        return
    refused = {rejection.index for rejection in receipt.rejections}
    for first, count, fate in receipt.ranges:
        if fate == "undelivered":
            for index in range(first, first + count):
                if index not in refused:
                    yield Rejection(index, "undelivered", None, receipt.last_problem)


def _by_line(
    encoded: EncodedBlock, request: EncodedRequest, rejections: Sequence[Rejection]
) -> list[tuple[Rejection, str | None]]:
    """Returns rejections by the block's lines instead of the request's, each with the id that was sent."""
    if not rejections:
        return []
    sent = request.body.split(b"\n")
    kept, outputs = encoded.records.kept, encoded.records.outputs
    found = []
    for rejection in rejections:
        record = request.first + rejection.index
        line = record if kept is None else kept[record]
        output = None if outputs is None else outputs[record]
        by_line = structs.replace(rejection, index=line, output=output)
        found.append((by_line, sent_insert_id(sent[rejection.index])))
    return found


def line_parts(block: Block) -> Column:
    """Returns for each line of a block the segment's part that it comes from."""
    return np.repeat(*_parts_and_lines(block))


def _parts_and_lines(block: Block) -> tuple[Column, Column]:
    """Returns the parts that a block has lines of, and how many of each."""
    parts = np.array([span.part for span in block.spans], np.int64)
    return parts, np.array([span.lines for span in block.spans], np.int64)


def _count(tally: Tally, encoded: EncodedBlock, request: EncodedRequest, receipt: Receipt) -> None:
    """Adds a receipt; the outcomes by part, where the block has several."""
    tally.charge(receipt)
    spans = encoded.block.spans
    if len(spans) == 1:
        for fate in ("imported", "undelivered", "not_attempted"):
            if count := getattr(receipt, fate):
                tally.parts.add(spans[0].part, fate, count)
        return
    _count_by_part(tally, encoded, request, receipt)


def _count_by_part(tally: Tally, encoded: EncodedBlock, request: EncodedRequest, receipt: Receipt) -> None:
    """Adds the outcome of each record to its own part; the receipt says which records fared how."""
    parts, kept = line_parts(encoded.block), encoded.records.kept
    of_records = parts if kept is None else parts[np.asarray(kept, np.int64)]
    refused = np.array([rejection.index for rejection in receipt.rejections], np.int64)
    for first, count, fate in receipt.ranges:
        fared = of_records[request.first + first : request.first + first + count]
        if len(refused):
            fared = np.delete(fared, refused[(refused >= first) & (refused < first + count)] - first)
        tally.parts.add_each(fate, fared)


def count_refusals(tally: Tally, block: Block, refusals: list[Rejection]) -> None:
    """Counts refused records; their index is that of their line."""
    if not refusals:
        return
    lines = np.array([rejection.index for rejection in refusals], np.int64)
    tally.parts.add_each("dead_lettered", line_parts(block)[lines])
    tally.by_reason.update(rejection.reason for rejection in refusals)


def count_mapped(tally: Tally, block: Block) -> None:
    """Counts what a map left out of a block, and the records that it made beyond one of each line."""
    mapped = block.mapped
    if mapped is None or not (mapped.filtered or mapped.expanded):
        return
    parts = line_parts(block)
    filtered = np.array([line for line, _ in mapped.filtered], np.int64)
    tally.parts.add_each("filtered", parts[filtered])
    tally.by_filter.update(reason for _, reason in mapped.filtered)
    tally.parts.add_each("expanded", parts[np.asarray(mapped.expanded, np.int64)])


def count_read(tally: Tally, block: Block, blank: int) -> None:
    """Counts the records read from what was read, not from what became of them: lines less blank ones."""
    if len(block.spans) == 1:
        tally.parts.add(block.spans[0].part, "read", block.lines - blank)
    elif block.spans:
        tally.parts.add_each("read", *_parts_and_lines(block))
        if blank:
            empty = np.array([not line.strip(BLANK) for line in block_lines(block)])
            tally.parts.add_each("read", line_parts(block)[empty], -np.ones(int(empty.sum()), np.int64))
