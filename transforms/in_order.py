"""Keeps the updates of each profile in the order of the input, however many requests are under way.

A block's records are dealt out by a hash of their profile over channels, each of which sends strictly one
request after the other. A request takes records of several blocks, so that it is full; a block is settled
when all of its records are. Plain values and rules; `import_in_order` wires them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from mixpanel_http.endpoints import ROUTES
from mixpanel_http.verdicts import Rejection
from transforms.elements import PreparedBlock
from transforms.line_sets import Indices, are_in
from transforms.tally import Tally

# What became of a record, as a small number: its place here.
FATES: Final = ("waiting", "imported", "undelivered", "ambiguous", "not_attempted", "dead_lettered")
FATE: Final = {name: number for number, name in enumerate(FATES)}


@dataclass(slots=True, eq=False)
class OpenBlock:
    """A block of which some records have no outcome yet.

    Attributes:
        prepared: the block.
        fates: for each record what became of it, as a place in `FATES`.
        left: records without an outcome.
        tally: what its requests cost; a request over several blocks is charged to its first.
        refused: what the service refused, by record.
        said: what is told of records that are neither imported nor refused.
    """

    prepared: PreparedBlock
    fates: npt.NDArray[np.uint8]
    left: int
    tally: Tally = field(default_factory=Tally)
    refused: list[Rejection] = field(default_factory=list)
    said: dict[int, str] = field(default_factory=dict)

    @property
    def held_bytes(self) -> int:
        """Bytes that it keeps in memory, about."""
        return len(self.prepared.block.raw) + 2 * len(self.prepared.records.body)

    def settle(self, records: Indices, fate: str, said: str = "") -> None:
        """Notes what became of some records that had no outcome."""
        self.fates[records] = FATE[fate]
        self.left -= len(records)
        if fate in ("undelivered", "ambiguous"):
            self.said.update(dict.fromkeys(records.tolist(), said))

    def refuse(self, rejection: Rejection) -> None:
        """Notes that the service refused a record; the rejection's index is the record's."""
        self.fates[rejection.index] = FATE["dead_lettered"]
        self.left -= 1
        self.refused.append(rejection)

    @property
    def lines(self) -> Indices:
        """For each record the block's line that it comes from."""
        kept = self.prepared.records.kept
        return np.arange(len(self.fates)) if kept is None else np.asarray(kept, np.int64)

    @property
    def once_only(self) -> npt.NDArray[np.bool_]:
        """For each record whether it must not be sent twice."""
        return _ONCE_ONLY[np.frombuffer(self.prepared.records.routes, np.uint8)]


_ONCE_ONLY: Final = np.array([not route.repeatable for route in ROUTES])
DOUBTFUL: Final = "an earlier attempt was about to send it, and it is not known whether it got through"
MAY_CHANGE: Final = "not sent: the file before it could not be read, and when it can this may be sent twice"


def open_block(prepared: PreparedBlock, repeats_all: bool = False) -> OpenBlock:
    """Returns a block; of its records only those have an outcome that earlier attempts leave no question of.

    Args:
        prepared: the block.
        repeats_all: also what must not be sent twice is sent again where it may have got through.
    """
    count = prepared.records.count
    block = OpenBlock(prepared, np.zeros(count, np.uint8), count)
    earlier = prepared.block.earlier
    if earlier is not None and count:
        imported = are_in(earlier.imported, block.lines)
        block.settle(np.flatnonzero(imported), "imported")
        if not repeats_all:
            doubtful = are_in(earlier.doubtful, block.lines) & block.once_only & ~imported
            block.settle(np.flatnonzero(doubtful), "ambiguous", DOUBTFUL)
    if prepared.block.provisional and count:
        block.settle(np.flatnonzero(block.once_only), "not_attempted")
    return block


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """Some of a block's records, in their order.

    Attributes:
        block: the block.
        records: their indices in it.
        lines: the records.
        keys: of their profiles.
        routes: of each its place in `endpoints.ROUTES`.
        size: their bytes in a request.
    """

    block: OpenBlock
    records: Indices
    lines: Sequence[bytes]
    keys: npt.NDArray[np.uint64]
    routes: bytes
    size: int

    def chosen(self, positions: Sequence[int]) -> Slice:
        """Returns the part of it at some positions."""
        lines = [self.lines[i] for i in positions]
        at = np.asarray(positions, np.int64)
        routes = bytes(self.routes[i] for i in positions)
        return Slice(self.block, self.records[at], lines, self.keys[at], routes, _size(lines))


def _size(lines: Sequence[bytes]) -> int:
    return sum(map(len, lines)) + len(lines)


def deal(block: OpenBlock, channels: int) -> Iterator[tuple[int, Slice]]:
    """Yields a block's records without an outcome, by the channel that their profiles belong to."""
    records = block.prepared.records
    if not block.left:
        return
    lines = records.body.split(b"\n")
    keys = np.frombuffer(records.keys, np.uint64)
    shards = keys % np.uint64(channels)
    waiting = block.fates == FATE["waiting"]
    for channel in range(channels):
        chosen = np.flatnonzero((shards == channel) & waiting)
        if len(chosen):
            at = chosen.tolist()
            own = [lines[i] for i in at]
            routes = bytes(map(records.routes.__getitem__, at))
            yield channel, Slice(block, chosen, own, keys[chosen], routes, _size(own))


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One request's worth of records of one route, in order.

    Attributes:
        route: its place in `endpoints.ROUTES`.
        slices: the records.
    """

    route: int
    slices: Sequence[Slice]

    @property
    def count(self) -> int:
        """Records in it."""
        return sum(len(piece.lines) for piece in self.slices)

    @property
    def body(self) -> bytes:
        """The records as NDJSON."""
        return b"\n".join([line for piece in self.slices for line in piece.lines])


class Channel:
    """Records that are to be sent one request after the other, in order.

    A request holds records of one route only. A record may overtake those of other profiles that take
    another route, never one of its own profile.
    """

    def __init__(self, most_records: int, most_bytes: int, held: set[int], requests: int = 1) -> None:
        """Takes the limits of a request, and the profiles of which an update is not delivered.

        Args:
            most_records: in a request; an endpoint may have a lower limit of its own.
            most_bytes: in a request.
            held: the profiles of all channels of which an update is not delivered.
            requests: how many requests' worth is taken at once, where several records may become one.
        """
        self._most_records = most_records
        self._most_bytes = most_bytes * requests
        self._requests = requests
        self._waiting: list[Slice] = []
        self.count = 0
        self._size = 0
        self._routes: set[int] = set()
        self.held = held

    def add(self, piece: Slice) -> None:
        """Adds records behind those that wait."""
        self._waiting.append(piece)
        self.count += len(piece.lines)
        self._size += piece.size
        self._routes.update(piece.routes)

    def take_from(self, other: Channel) -> None:
        """Takes over all that waits in another channel, none of whose requests may be under way."""
        for piece in other._waiting:
            self.add(piece)
        other._keep([])

    @property
    def is_full(self) -> bool:
        """True if a request can be filled; where routes alternate, more have to wait for that."""
        if not self.count:
            return False
        most = min(self._records_of(route) for route in self._routes)
        return self.count >= most * len(self._routes) or self._size >= self._most_bytes

    def take(self) -> Batch:
        """Returns the next request's records; there must be some."""
        route = self._waiting[0].routes[0]
        most = self._records_of(route)
        taken: list[Slice] = []
        kept: list[Slice] = []
        passed_over: set[int] = set()
        count = size = 0
        for piece in self._waiting:
            if count >= most:
                kept.append(piece)
                continue
            here, rest = _split(piece, route, most - count, self._most_bytes - size, passed_over, not taken)
            if here is not None:
                taken.append(here)
                count += len(here.lines)
                size += here.size
            if rest is not None:
                kept.append(rest)
        self._keep(kept)
        return Batch(route, taken)

    def _keep(self, waiting: list[Slice]) -> None:
        self._waiting = waiting
        self.count = sum(len(piece.lines) for piece in waiting)
        self._size = sum(piece.size for piece in waiting)
        self._routes = {route for piece in waiting for route in piece.routes}

    def _records_of(self, route: int) -> int:
        return self._requests * min(self._most_records, ROUTES[route].endpoint.most_records)


def _split(
    piece: Slice, route: int, most: int, most_bytes: int, passed_over: set[int], first: bool
) -> tuple[Slice | None, Slice | None]:
    """Returns what of a slice goes into a request, and what waits.

    Args:
        piece: the slice.
        route: of the request.
        most: records that the request still takes.
        most_bytes: bytes that it still takes.
        passed_over: profiles of which a record waits; those of this slice are added.
        first: whether the request is empty so far, so that it takes a record of any size.
    """
    alike = piece.routes.count(route) == len(piece.routes)
    if alike and not passed_over and len(piece.lines) <= most and piece.size <= most_bytes:
        return piece, None
    here: list[int] = []
    rest: list[int] = []
    for position, key in enumerate(piece.keys.tolist()):
        size = len(piece.lines[position]) + 1
        fits = len(here) < most and (size <= most_bytes or (first and not here))
        if fits and piece.routes[position] == route and key not in passed_over:
            here.append(position)
            most_bytes -= size
        else:
            rest.append(position)
            passed_over.add(key)
    return piece.chosen(here) if here else None, piece.chosen(rest) if rest else None
