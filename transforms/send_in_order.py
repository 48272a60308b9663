"""Sends batches of one channel after the other, and notes in their blocks what became of the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from msgspec import structs

from mixpanel_http.collapsing import COLLAPSED, collapse
from mixpanel_http.crash_points import crash_point
from mixpanel_http.endpoints import ROUTES
from mixpanel_http.outgoing import request_bounds
from mixpanel_http.receipts import Receipt, Stop
from mixpanel_http.verdicts import Rejection
from transforms.in_order import FATE, FATES, Batch, Channel, Slice
from transforms.line_sets import Indices, packed, united

HELD_BACK: Final = "not sent, because an earlier update of the same profile is not delivered"


class DeliversUpdates(Protocol):
    """What sends a request and accounts for it; `Deliverer` in production."""

    def deliver(
        self, body: bytes, count: int, compressed: bytes | None = None, repeatable: bool = True
    ) -> Receipt:
        """Returns what became of `count` records."""
        ...


class Intends(Protocol):
    """Where what is about to be sent once only is written down; `pipelines.intents.Intents` in production."""

    def intend(self, segment: str, attempt: str, lines: Mapping[int, bytes]) -> None:
        """Makes durable that some lines, by block as bitmaps, are about to be sent."""
        ...


@dataclass(frozen=True, slots=True)
class OnceOnly:
    """What is done with records that must not be sent twice.

    Attributes:
        intents: where they are written down before they are sent; None writes nothing.
        repeats_all: send them again all the same where they may have got through.
    """

    intents: Intends | None = None
    repeats_all: bool = False


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a request may hold, and whether updates that follow each other become one before they are sent.

    Attributes:
        records: at most; an endpoint may have a lower limit of its own.
        bytes: at most, uncompressed.
        collapse: one update in place of several on a profile, where that leaves the same profile.
    """

    records: int
    bytes: int
    collapse: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """A batch that was sent, and what became of it.

    Attributes:
        batch: the records.
        fates: for each of them what became of it, as a place in `FATES`; those that were refused wait.
        refused: for records of the batch, why the service refused them.
        receipts: of its requests.
        held_back: records that were not sent, because an earlier one of their profile is not delivered.
        collapsed: records that were sent as a part of another.
    """

    batch: Batch
    fates: npt.NDArray[np.uint8]
    refused: Mapping[int, Rejection]
    receipts: Sequence[Receipt]
    held_back: Sequence[Slice] = ()
    collapsed: int = 0

    @property
    def stop(self) -> Stop | None:
        """Why the run must not go on, or None."""
        return next((receipt.stop for receipt in self.receipts if receipt.stop), None)

    def settle(self) -> None:
        """Notes in their blocks what became of the records."""
        for piece in self.held_back:
            piece.block.settle(piece.records, "undelivered", HELD_BACK)
        if not self.batch.slices:
            return
        tally = self.batch.slices[0].block.tally
        for receipt in self.receipts:
            tally.charge(receipt)
        if self.collapsed:
            tally.alterations[COLLAPSED] += self.collapsed
        said = next((receipt.last_problem for receipt in self.receipts if receipt.last_problem), "")
        start = 0
        for piece in self.batch.slices:
            end = start + len(piece.lines)
            _settle_slice(piece, self.fates[start:end], said)
            for index in range(start, end) if self.refused else ():
                if index in self.refused:
                    record = int(piece.records[index - start])
                    piece.block.refuse(structs.replace(self.refused[index], index=record))
            start = end


def _settle_slice(piece: Slice, fates: npt.NDArray[np.uint8], said: str) -> None:
    for number in np.unique(fates).tolist():
        if number:
            piece.block.settle(piece.records[fates == number], FATES[number], said)


def send(
    channel: Channel, batch: Batch, delivers: DeliversUpdates, limits: RequestLimits, once_only: OnceOnly
) -> Sent:
    """Sends a batch, except what has to wait behind an update that is not delivered.

    Called by one thread for each channel.

    Args:
        channel: whose batch it is.
        batch: what to send.
        delivers: sends it.
        limits: of a request.
        once_only: what is done with records that must not be sent twice.
    """
    held_back: list[Slice] = []
    if channel.held:
        batch, held_back = _without_held(channel.held, batch)
    if not batch.slices:
        return Sent(batch, np.zeros(0, np.uint8), {}, (), held_back)
    route = ROUTES[batch.route]
    if not route.repeatable and once_only.intents is not None:
        _write_down(batch, once_only.intents)
    lines = [line for piece in batch.slices for line in piece.lines]
    keys = np.concatenate([piece.keys for piece in batch.slices])
    part_of: Indices = np.arange(len(lines))
    whole = len(lines)
    if limits.collapse and route.endpoint.in_records:
        lines, parts = collapse(lines, keys.tolist())
        part_of = np.asarray(parts, np.int64)
    delivery = _Delivery(lines, delivers, route.repeatable or once_only.repeats_all)
    delivery.run(min(limits.records, route.endpoint.most_records), limits.bytes)
    fates = delivery.fates[part_of]
    channel.held.update(keys[fates == FATE["undelivered"]].tolist())
    parts_of_all = enumerate(part_of.tolist()) if delivery.refused else ()
    refused = {i: delivery.refused[part] for i, part in parts_of_all if part in delivery.refused}
    return Sent(batch, fates, refused, delivery.receipts, held_back, whole - len(lines))


def not_sent(batch: Batch, fate: str, said: str = "") -> Sent:
    """Returns a batch of which no answer tells anything, and why; all its records have the same fate."""
    records = sum(len(piece.lines) for piece in batch.slices)
    return Sent(batch, np.full(records, FATE[fate], np.uint8), {}, (Receipt(last_problem=said),))


class _Delivery:
    """The delivery of a batch's lines: nearly always one request, several where many became fewer."""

    def __init__(self, lines: Sequence[bytes], delivers: DeliversUpdates, repeatable: bool) -> None:
        self._lines = lines
        self._delivers = delivers
        self._repeatable = repeatable
        self.fates = np.zeros(len(lines), np.uint8)
        self.refused: dict[int, Rejection] = {}
        self.receipts: list[Receipt] = []

    def run(self, most: int, most_bytes: int) -> None:
        """Sends the lines; behind what is not delivered nothing more."""
        for first, end in request_bounds(self._lines, most, most_bytes):
            if self.receipts and self.receipts[-1].undelivered:
                self.fates[first:end] = FATE["undelivered"]
                continue
            body = b"\n".join(self._lines[first:end])
            receipt = self._delivers.deliver(body, end - first, repeatable=self._repeatable)
            self.receipts.append(receipt)
            for index, length, fate in receipt.ranges:
                self.fates[first + index : first + index + length] = FATE[fate]
            for rejection in receipt.rejections:
                self.fates[first + rejection.index] = FATE["waiting"]
                self.refused[first + rejection.index] = rejection


def _write_down(batch: Batch, intents: Intends) -> None:
    found: dict[tuple[str, str], dict[int, bytes]] = {}
    for piece in batch.slices:
        block = piece.block.prepared.block
        lines = found.setdefault((block.segment, block.attempt), {})
        lines[block.ordinal] = united(lines.get(block.ordinal, b""), packed(piece.block.lines[piece.records]))
    for (segment, attempt), lines in found.items():
        intents.intend(segment, attempt, lines)
    crash_point("after intents")


def _without_held(held: set[int], batch: Batch) -> tuple[Batch, list[Slice]]:
    free: list[Slice] = []
    back: list[Slice] = []
    for piece in batch.slices:
        keys = piece.keys.tolist()
        here = [i for i, key in enumerate(keys) if key not in held]
        if len(here) == len(keys):
            free.append(piece)
            continue
        back.append(piece.chosen([i for i, key in enumerate(keys) if key in held]))
        free += [piece.chosen(here)] if here else []
    return Batch(batch.route, free), back
