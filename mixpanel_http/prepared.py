"""What becomes of a block of records before they are sent, whatever their kind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from mixpanel_http.verdicts import Rejection


@dataclass(frozen=True, slots=True)
class PreparedRecords:
    """The records of a block as they are to be sent, and what became of the others.

    Attributes:
        body: NDJSON without a final newline.
        count: records in `body`.
        kept: for each record of `body` the block's line it comes from, or None where every line was kept.
        rejections: what was refused, by line.
        blank: lines with nothing on them; they are not records.
        stamped_ids: ids that were made here.
        alterations: how many records each kind of fix changed.
        keys: for kinds that keep an order, for each record 8 bytes that are the same for what is to stay in
            order.
        routes: for the same kinds, for each record a byte: its place in `endpoints.ROUTES`.
        refused: of mixed kinds, how many records each endpoint's rules refused.
        outputs: for each record of `body` which of its line's records it is, where a map made them.
    """

    body: bytes
    count: int
    kept: tuple[int, ...] | None = None
    rejections: tuple[Rejection, ...] = ()
    blank: int = 0
    stamped_ids: tuple[str, ...] = ()
    alterations: Counter[str] = field(default_factory=Counter)
    keys: bytes = b""
    routes: bytes = b""
    outputs: tuple[int, ...] | None = None
    refused: Counter[str] = field(default_factory=Counter)
