"""Sends lookup tables: one after the other, one request each, all or nothing. No pipeline is needed for it.

The ledger is the one that every run has: a table that is done is not sent again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from mixpanel_http.answers import Answer
from mixpanel_http.awake import surroundings_here
from mixpanel_http.client import ImportClient
from mixpanel_http.crash_points import crash_point
from mixpanel_http.destinations import Destination
from mixpanel_http.endpoints import compress
from mixpanel_http.failure_table import Action
from mixpanel_http.lookup_tables import (
    MAX_TABLE_BYTES,
    CheckedTable,
    NoTable,
    check_table,
    table_endpoint,
)
from mixpanel_http.outgoing import Outgoing
from mixpanel_http.rate import Lane
from mixpanel_http.receipts import Receipt, Stop
from mixpanel_http.retrying import PatientSender, RetryPolicy
from mixpanel_http.verdicts import Rejection
from pipelines.ledger import Ledger
from pipelines.table_files import table_of
from transforms import activity, drain, unrecorded
from transforms.attempt_ids import new_attempt_id
from transforms.compression import DamagedFile
from transforms.elements import BlockOutcome, FileNote, FilePart, Segment
from transforms.file_text import text_of
from transforms.pinned_files import Changed, PinnedFile, pinned
from transforms.storage import Storage, storage_errors
from transforms.table_outcomes import TableFate, is_settled, table_outcomes, unreadable_table
from transforms.unrecorded import CannotRecord

ANOTHER_ROW: Final = "another row of the table is refused, and a table is replaced as a whole"
_READ_BYTES: Final = 4 << 20
_REFUSALS: Final = (Action.ISOLATE, Action.HALVE)  # for which other requests are cut; a table cannot be
_STOPS: Final = (Action.STOP, Action.PROBE)
_PROBLEMS: Final = (
    (NoTable, "no_table"),
    (Changed, "changed"),
    (FileNotFoundError, "missing"),
)


class TableSender:
    """Sends tables to one destination, and says what became of each."""

    def __init__(self, destination: Destination, lane: Lane, policy: RetryPolicy) -> None:
        """Takes where to and how; connects to nothing yet."""
        self._destination, self._lane, self._policy = destination, lane, policy

    def send(self, table: str, content: bytes) -> TableFate:
        """Returns what became of a table that was sent, or could not be."""
        client = ImportClient(self._destination, 1, endpoint=table_endpoint(table))
        sender = PatientSender(client, self._lane, self._policy, surroundings_here(activity.here.waiting))
        switch = drain.Sender(sender.halt, client.cut_off, list)
        drain.attach(switch)
        try:
            receipt = Receipt()
            answer = sender.send(Outgoing(content, 1, compressed=compress(content)), receipt)
            return _fate(answer, receipt, sender)
        finally:
            drain.detach(switch)
            client.close()


@dataclass(frozen=True, slots=True)
class TableRun:
    """What all tables of a run have in common.

    Attributes:
        ledger: where outcomes go.
        storage: how the files are reached.
        tables: ids by patterns of file names.
        sender: sends a table; None sends nothing.
    """

    ledger: Ledger
    storage: Storage
    tables: Mapping[str, str]
    sender: TableSender | None

    def send_all(self, segments: Iterable[Segment]) -> None:
        """Sends each table that is not done, until all are or the run is to end."""
        for segment in segments:
            if drain.is_requested():
                return
            attempt = new_attempt_id()
            settled = self.ledger.settled_blocks(segment.id, attempt)
            if settled is not None:
                self._settle(segment, attempt, settled)

    def _settle(self, segment: Segment, attempt: str, settled: set[int]) -> None:
        writer = self.ledger.open_attempt(segment.id, attempt)
        stop = None
        try:
            for outcome in self._outcomes(segment, attempt, settled):
                writer.record(outcome)
                activity.here.settled(segment.id, outcome.tally)
                stop = stop or outcome.stop
            crash_point("before commit of a table")
            activity.here.completed(segment.id, writer.commit())
        except CannotRecord:
            unrecorded.here.add(segment.id, writer.unrecorded())
            raise
        if stop is not None:
            self.ledger.write_stop(stop)
            drain.request(drain.STOP_SECONDS)

    def _outcomes(self, segment: Segment, attempt: str, settled: set[int]) -> Iterator[BlockOutcome]:
        part = segment.parts[0]
        try:
            table = check_table(_content(part, self.storage))
        except (NoTable, DamagedFile, Changed) as error:
            yield unreadable_table(segment, attempt, _note(part, error))
            return
        except storage_errors() as error:
            yield unreadable_table(segment, attempt, _note(part, error))
            return
        yield from table_outcomes(segment, attempt, table, self._fate(part, table, settled), settled)

    def _fate(self, part: FilePart, table: CheckedTable, settled: set[int]) -> TableFate:
        if table.refused:
            return TableFate("dead_lettered", table.refused, ANOTHER_ROW, stage="prepare")
        if table.rows and is_settled(table, settled):
            return TableFate("imported")
        if self.sender is None:
            return TableFate("not_attempted")
        return self.sender.send(table_of(part.uri, self.tables) or "", table.content)


def _fate(answer: Answer | None, receipt: Receipt, sender: PatientSender) -> TableFate:
    receipt.stop = sender.stopped
    if answer is None or (sender.halted and not answer.sent):
        return TableFate("not_attempted", receipt=receipt)
    if answer.action is Action.ACCEPT:
        return TableFate("imported", receipt=receipt)
    if answer.action in _REFUSALS:
        said = answer.message if not answer.refused else ANOTHER_ROW
        rejections = [
            Rejection(row.index, "refused_by_service", None, row.message, answer.status)
            for row in answer.refused
        ]
        return TableFate("dead_lettered", rejections, said, answer.status, receipt=receipt)
    if answer.action in _STOPS:
        receipt.stop = receipt.stop or Stop(answer.status, answer.told or answer.label)
        return TableFate("not_attempted", receipt=receipt)
    return TableFate("undelivered", problem=answer.told, http_status=answer.status or None, receipt=receipt)


def _content(part: FilePart, storage: Storage) -> bytes:
    """Returns a file's text, up to a little more than a table may have.

    Raises:
        DamagedFile, Changed, OSError: if it cannot be read as it was planned.
    """
    pieces, size = [], 0
    with pinned(storage.open_to_read(part.uri), part) as file:
        for _, piece in text_of(lambda: _stored(file, part), part.uri):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_TABLE_BYTES:
                break
    return b"".join(pieces)


def _stored(file: PinnedFile, part: FilePart) -> Iterator[bytes]:
    for start in range(0, part.size, _READ_BYTES):
        yield file.read(start, min(start + _READ_BYTES, part.size))


def _note(part: FilePart, error: BaseException) -> FileNote:
    """Returns what is wrong with a file, by the names that all kinds of records have for it."""
    if isinstance(error, DamagedFile):
        return FileNote(0, part.uri, 0, error.problem, error.offset, error.detail)
    problem = next((name for kind, name in _PROBLEMS if isinstance(error, kind)), "unreadable")
    said = type(error).__name__ if problem == "unreadable" else str(error)
    return FileNote(0, part.uri, 0, problem, None, said[:300])
