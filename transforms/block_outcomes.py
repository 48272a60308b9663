"""What became of a block whose records were sent one by one over several requests, as the ledger takes it."""

from __future__ import annotations

import numpy as np
from msgspec import structs

from mixpanel_http.endpoints import ROUTES, TO_EVENTS
from mixpanel_http.receipts import Stop
from mixpanel_http.verdicts import Rejection
from transforms.dead_letters import dead_letters, sent_insert_id
from transforms.elements import NOTHING_SENT, Block, BlockOutcome, EarlierSends
from transforms.in_order import FATE, FATES, OpenBlock
from transforms.letters import LetterLines
from transforms.line_sets import Indices, packed
from transforms.part_counts import LEFT
from transforms.settle_block import count_mapped, count_read, count_refusals, line_parts
from transforms.tally import Tally


def outcome_of(settled: OpenBlock, stop: Stop | None = None) -> BlockOutcome:
    """Returns the outcome of a block all of whose records have one."""
    block, records = settled.prepared.block, settled.prepared.records
    tally = settled.tally
    tally.lines = block.lines
    tally.alterations.update(records.alterations)
    lines = settled.lines
    by_record = sorted(settled.refused, key=lambda r: r.index)
    refused = [
        structs.replace(r, index=int(lines[r.index]), output=_output(settled, r.index)) for r in by_record
    ]
    unmapped = block.mapped.rejections if block.mapped else ()
    undelivered = np.flatnonzero(settled.fates == FATE["undelivered"]).tolist()
    undelivered_ids = _sent_ids(settled, undelivered)
    _count_fates(tally, settled, lines)
    count_refusals(tally, block, [*unmapped, *records.rejections, *refused])
    count_read(tally, block, records.blank)
    count_mapped(tally, block)
    return BlockOutcome(
        block.segment,
        block.attempt,
        block.ordinal,
        tally,
        LetterLines.joined(
            (
                dead_letters(block, unmapped, "map"),
                dead_letters(block, records.rejections, "prepare"),
                dead_letters(block, refused, "import", _sent_ids(settled, [r.index for r in by_record])),
            )
        ),
        records.stamped_ids,
        block.notes,
        block.end,
        stop,
        dead_letters(block, _left(settled, "undelivered", lines), "import", undelivered_ids),
        block.provisional,
        dead_letters(block, _left(settled, "ambiguous", lines), "import"),
        _sends(settled, lines),
        bool(records.count) and bool(settled.once_only.any()),
    )


def _sends(settled: OpenBlock, lines: Indices) -> EarlierSends:
    """Returns which lines are imported, or may be, if the block has to be sent again.

    Of a line of which a map made several records, some may be imported and others not: that is doubtful.
    """
    if not np.isin(settled.fates, [FATE[fate] for fate in LEFT]).any():
        return NOTHING_SENT
    imported = settled.fates == FATE["imported"]
    partly = np.intersect1d(lines[imported], lines[~imported])
    doubtful = np.union1d(lines[settled.fates == FATE["ambiguous"]], partly)
    return EarlierSends(packed(np.setdiff1d(lines[imported], partly)), packed(doubtful))


def _sent_ids(settled: OpenBlock, records: list[int]) -> list[str | None]:
    """Returns the `$insert_id`s of some records, as far as they are events."""
    if not records:
        return []
    sent, routes = settled.prepared.records.body.split(b"\n"), settled.prepared.records.routes
    return [sent_insert_id(sent[i]) if routes[i] == TO_EVENTS else None for i in records]


def _left(settled: OpenBlock, fate: str, lines: Indices) -> list[Rejection]:
    """Returns what a letter says of each record with a fate: nothing against it, only what went wrong."""
    found = np.flatnonzero(settled.fates == FATE[fate]).tolist()
    said = settled.said
    return [Rejection(int(lines[i]), fate, None, said.get(i, ""), output=_output(settled, i)) for i in found]


def _output(settled: OpenBlock, index: int) -> int | None:
    """Returns which of the records that a map made of a line a record is."""
    outputs = settled.prepared.records.outputs
    return None if outputs is None else outputs[index]


def _count_fates(tally: Tally, settled: OpenBlock, lines: Indices) -> None:
    """Counts the records by what became of them, for each part of the segment; refusals are counted apart."""
    parts = _parts(settled.prepared.block, lines)
    for name in ("imported", "undelivered", "ambiguous", "not_attempted"):
        tally.parts.add_each(name, parts[settled.fates == FATE[name]])
    _count_by_endpoint(tally, settled)
    tried = settled.once_only & (settled.fates != FATE["not_attempted"])
    routes = settled.prepared.records.routes
    tally.once_only.update(
        (int(parts[record]), ROUTES[routes[record]].endpoint.name) for record in np.flatnonzero(tried)
    )


def _parts(block: Block, lines: Indices) -> Indices:
    if len(block.spans) == 1:
        return np.full(len(lines), block.spans[0].part, np.int64)
    return line_parts(block)[lines]


def _count_by_endpoint(tally: Tally, settled: OpenBlock) -> None:
    for name, count in settled.prepared.records.refused.items():
        tally.by_endpoint[f"{name}.dead_lettered"] += count
    routes = np.frombuffer(settled.prepared.records.routes, np.uint8)
    for route in np.unique(routes).tolist():
        fates = np.bincount(settled.fates[routes == route], minlength=len(FATES)).tolist()
        for name, count in zip(FATES, fates, strict=True):
            if count:
                tally.by_endpoint[f"{ROUTES[route].endpoint.name}.{name}"] += count
