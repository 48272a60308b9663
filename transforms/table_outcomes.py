"""What became of a lookup table, as the ledger takes it: all of its rows share one fate."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from mixpanel_http.lookup_tables import CheckedTable, Row, table_rows
from mixpanel_http.receipts import SUMS, Receipt
from mixpanel_http.verdicts import Reason, Rejection
from transforms.dead_letters import VERSION
from transforms.elements import BlockOutcome, FileNote, Segment
from transforms.letters import NO_LETTERS, LetterLines
from transforms.tally import Tally

ROWS_PER_BLOCK: Final = 10_000  # letters are written a block at a time; the same in every attempt


@dataclass(frozen=True, slots=True)
class TableFate:
    """What became of a table.

    Attributes:
        fate: the count's name that its rows go under.
        rejections: of single rows, by their index.
        problem: what letters say of the other rows.
        http_status: the last answer's, or None.
        stage: the step that refused it.
        receipt: the requests that it took.
    """

    fate: str
    rejections: Sequence[Rejection] = ()
    problem: str = ""
    http_status: int | None = None
    stage: str = "import"
    receipt: Receipt = field(default_factory=Receipt)


def table_outcomes(
    segment: Segment, attempt: str, table: CheckedTable, fate: TableFate, settled: Container[int] = ()
) -> Iterator[BlockOutcome]:
    """Yields the outcomes of a table's blocks, except those that are settled; the last one is empty."""
    rows = itertools.islice(table_rows(table.content), 1, None)
    named = {rejection.index: rejection for rejection in fate.rejections}
    letters = _Letters(segment.parts[0].uri, table.header, named, fate)
    blocks = -(-table.rows // ROWS_PER_BLOCK)
    for ordinal in range(blocks):
        own = list(itertools.islice(rows, ROWS_PER_BLOCK))
        if ordinal not in settled:
            tally = _tally(own, ordinal * ROWS_PER_BLOCK, named, fate)
            yield _outcome(segment, attempt, ordinal, tally, letters.of(own, ordinal * ROWS_PER_BLOCK), fate)
    end = Tally()
    _count_requests(end, fate.receipt)
    note = FileNote(0, segment.parts[0].uri, table.rows)
    yield BlockOutcome(segment.id, attempt, blocks, end, notes=(note,), end=True, stop=fate.receipt.stop)


def unreadable_table(segment: Segment, attempt: str, note: FileNote) -> BlockOutcome:
    """Returns the outcome of a file that is no table, or could not be read."""
    return BlockOutcome(segment.id, attempt, 0, Tally(), notes=(note,), end=True, provisional=note.may_heal)


def is_settled(table: CheckedTable, settled: Container[int]) -> bool:
    """Returns whether every row's outcome is known from before: then the table is not sent again."""
    return all(ordinal in settled for ordinal in range(-(-table.rows // ROWS_PER_BLOCK)))


def _outcome(
    segment: Segment, attempt: str, ordinal: int, tally: Tally, letters: LetterLines, fate: TableFate
) -> BlockOutcome:
    dead = letters if fate.fate == "dead_lettered" else NO_LETTERS
    undelivered = letters if fate.fate == "undelivered" else NO_LETTERS
    return BlockOutcome(segment.id, attempt, ordinal, tally, dead, undelivered=undelivered)


def _tally(rows: Sequence[Row], first: int, named: Mapping[int, Rejection], fate: TableFate) -> Tally:
    tally = Tally(lines=len(rows))
    tally.parts.add(0, "read", len(rows))
    tally.parts.add(0, fate.fate, len(rows))
    if fate.fate == "dead_lettered":
        reasons = (named[i].reason if i in named else None for i in range(first, first + len(rows)))
        tally.by_reason.update(reason or Reason.TABLE_REFUSED.value for reason in reasons)
    return tally


def _count_requests(tally: Tally, receipt: Receipt) -> None:
    for name in SUMS:
        setattr(tally, name, getattr(receipt, name))
    tally.requests.update(receipt.requests)


@dataclass(frozen=True, slots=True)
class _Letters:
    """Writes down rows that are not imported."""

    uri: str
    header: Sequence[str]
    named: Mapping[int, Rejection]
    fate: TableFate

    def of(self, rows: Sequence[Row], first: int) -> LetterLines:
        """Returns a letter for each row, or none where none is due."""
        if self.fate.fate not in ("dead_lettered", "undelivered"):
            return NO_LETTERS
        letters = (self._letter(row, self.named.get(first + i)) for i, row in enumerate(rows))
        return LetterLines.of([orjson.dumps(letter) for letter in letters])

    def _letter(self, row: Row, rejection: Rejection | None) -> dict[str, Any]:
        refused = self.fate.fate == "dead_lettered"
        rest = Reason.TABLE_REFUSED.value if refused else self.fate.fate
        fits = len(row.fields) == len(self.header)
        return {
            "v": VERSION,
            "stage": self.fate.stage,
            "reason": rejection.reason if rejection else rest,
            "http_status": self.fate.http_status,
            "field": rejection.field if rejection else None,
            "message": rejection.message if rejection else self.fate.problem,
            "source": {"uri": self.uri, "line": row.line, "offset": None},
            "insert_id": None,
            "record": dict(zip(self.header, row.fields, strict=True)) if fits else row.fields,
        }
