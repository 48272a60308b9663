"""What stands in the ledger's files: records of blocks and segments, as sealed lines.

A seal is a checksum over the line, the file's own name and run, and the line before. So a line that is
damaged, missing, doubled, out of its order, from another file, run or version breaks the chain; what stands
behind is not believed. That is what lets a line speak for everything before it, as it does of dead letters.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, field
from operator import attrgetter
from typing import Any, Final, NamedTuple

import orjson

from transforms.elements import NOTHING_SENT, EarlierSends, FileNote
from transforms.tally import Tally

VERSION: Final = 2
_BROKEN: Final = (KeyError, TypeError, ValueError, AttributeError, IndexError)
_STAMPS: Final = ("stamped_insert_ids", "replaced_insert_ids")


@dataclass(frozen=True, slots=True)
class DeadFile:
    """A file of letters, as far as it is committed: `bytes` of it, with `records` in them."""

    name: str
    bytes: int
    records: int
    crc32: int = 0


@dataclass(slots=True)
class BlockRecord:
    """What the ledger knows of one block.

    Attributes:
        ordinal: its position in the segment.
        tally: its counts.
        notes: how reading ended, in the segment's last block.
        end: True for that block.
        provisional: True if what could not be read may be read next time, and then blocks are cut elsewhere.
        open_letters: the letters of a block that is to be sent again; they count until it is.
        undelivered: its undelivered records.
        ambiguous: its records that may have got through.
        sends: which of its lines are imported, or may be, where it is not settled.
    """

    ordinal: int
    tally: Tally
    notes: tuple[FileNote, ...] = ()
    end: bool = False
    provisional: bool = False
    open_letters: DeadFile | None = None
    undelivered: DeadFile | None = None
    ambiguous: DeadFile | None = None
    sends: EarlierSends = NOTHING_SENT

    @property
    def settled(self) -> bool:
        """True if the block need not be sent again."""
        if self.provisional or not self.tally.parts.settled:
            return False
        return not self.notes or not any(note.may_heal for note in self.notes)


class ProgressLine(NamedTuple):
    """Blocks that were written down together, and the letters of those among them that are settled."""

    blocks: tuple[BlockRecord, ...]
    at: float
    dead: DeadFile | None = None


@dataclass(slots=True)
class SegmentRecord:
    """What the ledger knows of one segment, over all its attempts.

    Attributes:
        segment: its id.
        tally: its counts.
        notes: how reading its parts ended.
        dead: the committed dead letters.
        done: whether nothing of it need be sent again.
        sample_level: of its sample of stamped ids.
        sample: that sample.
        sample_whole: whether all ids that were stamped went into the sample.
        blocks: how many blocks are known.
        undelivered: files of undelivered records.
        ambiguous: files of records that may have got through.
        began_at: when the attempt began that wrote last, in seconds since the epoch.
        ended_at: when it last wrote.
        completion: the file that says that it is done, or nothing.
        digested: whether the run's digest has it.
        unrecorded: undelivered records of which only the process knows that could not write them down.
        unrecorded_ambiguous: likewise, records that may have got through.
    """

    segment: str
    tally: Tally
    notes: tuple[FileNote, ...]
    dead: tuple[DeadFile, ...]
    done: bool
    sample_level: int = 0
    sample: Mapping[str, int] = field(default_factory=dict)
    sample_whole: bool = True
    blocks: int = 0
    undelivered: tuple[DeadFile, ...] = ()
    began_at: float = 0.0
    ended_at: float = 0.0
    ambiguous: tuple[DeadFile, ...] = ()
    completion: str = ""
    digested: bool = False
    unrecorded: int = 0
    unrecorded_ambiguous: int = 0


def seed(run: str, name: str) -> int:
    """Returns the seal that a file's first line continues."""
    return zlib.crc32(f"{VERSION} {run} {name.rpartition('/')[2]}".encode())


def seal(values: Mapping[str, Any], before: int) -> tuple[bytes, int]:
    """Returns values as a line that starts with its seal, and the seal."""
    content = orjson.dumps(values)
    number = zlib.crc32(content, before)
    return b"%08x %b\n" % (number, content), number


def unseal(line: bytes, before: int) -> tuple[dict[str, Any], int] | None:
    """Returns the values in a sealed line and its seal, or None if it is not what was written there."""
    if not line.endswith(b"\n") or line[8:9] != b" ":
        return None
    content = line[9:-1]
    number = zlib.crc32(content, before)
    if line[:8] != b"%08x" % number:
        return None
    try:
        values = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    return (values, number) if isinstance(values, dict) else None


def progress_values(line: ProgressLine) -> dict[str, Any]:
    """Returns a line of progress as JSON values."""
    values: dict[str, Any] = {"at": round(line.at, 3), "b": [_block_values(block) for block in line.blocks]}
    if line.dead:
        values["dead"] = _file_values(line.dead)
    return values


def read_progress(content: bytes, before: int) -> Iterator[tuple[ProgressLine, int, int]]:
    """Yields the lines of a progress file with their seal and their length, as far as it is whole."""
    for raw in content.splitlines(keepends=True):
        opened = unseal(raw, before)
        line = _progress_line(opened[0]) if opened else None
        if opened is None or line is None:
            return
        before = opened[1]
        yield line, before, len(raw)


def done_values(record: SegmentRecord) -> dict[str, Any]:
    """Returns a segment's completion as JSON values."""
    return {
        "segment": record.segment,
        "blocks": record.blocks,
        "t": record.tally.to_json(),
        "notes": [_note_values(note) for note in record.notes],
        "dead": [_file_values(file) for file in record.dead],
        "sample": [record.sample_level, dict(record.sample), record.sample_whole],
        "at": [round(record.began_at, 3), round(record.ended_at, 3)],
    }


def read_done(segment: str, content: bytes, before: int) -> SegmentRecord | None:
    """Returns what a completion says, or None if it is not whole."""
    opened = unseal(content, before)
    return done_record(segment, opened[0]) if opened else None


def done_record(segment: str, values: Mapping[str, Any]) -> SegmentRecord | None:
    """Returns what the values of a completion say, or None if they are not of that segment."""
    if values.get("segment") != segment:
        return None
    try:
        level, sample, whole = values["sample"]
        began_at, ended_at = values["at"]
        return SegmentRecord(
            segment,
            Tally.from_json(values["t"]),
            tuple(FileNote(*note) for note in values["notes"]),
            tuple(DeadFile(*file) for file in values["dead"]),
            True,
            level,
            sample,
            whole,
            values["blocks"],
            (),
            began_at,
            ended_at,
        )
    except _BROKEN:
        return None


def record_values(record: SegmentRecord) -> dict[str, Any]:
    """Returns all of a record as JSON values, whether its segment is done or not."""
    return {
        **done_values(record),
        "done": record.done,
        "undelivered": [_file_values(file) for file in record.undelivered],
        "ambiguous": [_file_values(file) for file in record.ambiguous],
        "began": [record.began_at, record.ended_at],
        "completion": record.completion,
        "digested": record.digested,
        "unrecorded": [record.unrecorded, record.unrecorded_ambiguous],
    }


def stored_record(values: Mapping[str, Any]) -> SegmentRecord:
    """Returns what `record_values` made values of.

    Raises:
        ValueError: if they are of something else.
    """
    record = done_record(values["segment"], values)
    if record is None:
        raise ValueError("no record of a segment")
    record.done, record.completion, record.digested = values["done"], values["completion"], values["digested"]
    record.undelivered = tuple(DeadFile(*file) for file in values["undelivered"])
    record.ambiguous = tuple(DeadFile(*file) for file in values["ambiguous"])
    record.began_at, record.ended_at = values["began"]
    record.unrecorded, record.unrecorded_ambiguous = values["unrecorded"]
    return record


def summarise(segment: str, blocks: Iterable[BlockRecord], dead: Iterable[DeadFile]) -> SegmentRecord:
    """Returns a segment's record, not done yet, from its blocks and their committed letters."""
    known = sorted(blocks, key=attrgetter("ordinal"))
    tally = Tally.sum([block.tally for block in known])
    return SegmentRecord(
        segment,
        tally,
        tuple(note for block in known for note in block.notes),
        (*dead, *(block.open_letters for block in known if block.open_letters)),
        False,
        sample_whole=not has_stamped(tally),
        blocks=len(known),
        undelivered=tuple(block.undelivered for block in known if block.undelivered),
        ambiguous=tuple(block.ambiguous for block in known if block.ambiguous),
    )


def has_stamped(tally: Tally) -> bool:
    """Returns whether ids were made for some of the records."""
    return any(tally.alterations[name] for name in _STAMPS)


def _block_values(block: BlockRecord) -> dict[str, Any]:
    values: dict[str, Any] = {"o": block.ordinal, "t": block.tally.to_json()}
    if block.notes:
        values["notes"] = [_note_values(note) for note in block.notes]
    if block.end:
        values["end"] = True
    if block.provisional:
        values["provisional"] = True
    if block.open_letters:
        values["open"] = _file_values(block.open_letters)
    if block.undelivered:
        values["undelivered"] = _file_values(block.undelivered)
    if block.ambiguous:
        values["ambiguous"] = _file_values(block.ambiguous)
    if block.sends.imported or block.sends.doubtful:
        values["sends"] = [base64.b64encode(bits).decode() for bits in astuple(block.sends)]
    return values


def _progress_line(values: Mapping[str, Any]) -> ProgressLine | None:
    try:
        dead = DeadFile(*values["dead"]) if "dead" in values else None
        return ProgressLine(tuple(_block_record(block) for block in values["b"]), values["at"], dead)
    except _BROKEN:
        return None


def _block_record(values: Mapping[str, Any]) -> BlockRecord:
    return BlockRecord(
        values["o"],
        Tally.from_json(values["t"]),
        tuple(FileNote(*note) for note in values.get("notes", ())),
        values.get("end", False),
        values.get("provisional", False),
        DeadFile(*values["open"]) if "open" in values else None,
        DeadFile(*values["undelivered"]) if "undelivered" in values else None,
        DeadFile(*values["ambiguous"]) if "ambiguous" in values else None,
        EarlierSends(*(base64.b64decode(bits) for bits in values.get("sends", ()))),
    )


def _note_values(note: FileNote) -> list[Any]:
    return list(note)


def _file_values(file: DeadFile) -> list[Any]:
    return [file.name, file.bytes, file.records, file.crc32]
