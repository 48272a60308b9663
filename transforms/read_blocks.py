"""ReadBlocks: from segments to blocks of lines."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import apache_beam as beam
from apache_beam.pvalue import PCollection

from mixpanel_http.crash_points import crash_point
from source_formats.opening import FormatChoice
from transforms import activity, drain
from transforms.attempt_ids import new_attempt_id
from transforms.duplicate_keys import DuplicateKeys, refuse_duplicates
from transforms.elements import GC_OBJECTS, Block, EarlierSends, Segment
from transforms.letters_again import open_letters
from transforms.ordered_blocks import ordered_blocks
from transforms.part_lines import Verify
from transforms.segment_reader import BlockLimits, SegmentReader
from transforms.storage import FileSystem, Storage, scheme_of


class Progress(Protocol):
    """What is known of earlier attempts at a segment; `pipelines.ledger.Ledger` in production."""

    def attend(self) -> None:
        """Makes this process take part in the run: it tells of itself, and hears when the run ends."""
        ...

    def settled_blocks(self, segment_id: str, attempt: str) -> set[int] | None:
        """Returns the ordinals of blocks that this attempt need not send again; None if it is not needed."""
        ...

    def earlier_sends(self, segment_id: str, attempt: str) -> Mapping[int, EarlierSends]:
        """Returns what was sent already of blocks that this attempt has to send, by ordinal."""
        ...

    def ordered_content(self, name: str) -> bytes:
        """Returns the lines of a segment that were put into an order when the run was planned."""
        ...

    def line_bases(self) -> Mapping[tuple[str, int], int]:
        """Returns the number of the line at an offset of a file, where it is known."""
        ...


@dataclass
class ReadBlocks(beam.PTransform[PCollection[Segment], PCollection[Block]]):
    """Reads each segment's lines, in order, as blocks of at most one request's worth.

    Every line of a segment is in exactly one block, and an attempt at a segment always cuts the same blocks.
    A file that cannot be read, or not to its end, is noted in the segment's last block and stops nothing.
    Where the run is drained, reading ends between two blocks; a segment without its last block is incomplete.

    Attributes:
        storage: how the sources are reached.
        limits: the largest block.
        progress: what earlier attempts settled.
        letters: the lines are dead letters, and the records in them are what is read.
        verify: `full` reads each compressed file through before any of it is sent.
        format: what the files hold.
        duplicate_keys: `refuse` makes a dead letter of a line with a key twice; `last` lets it pass.
    """

    storage: Storage
    limits: BlockLimits
    progress: Progress
    letters: bool = False
    verify: Verify = "stream"
    format: FormatChoice = field(default_factory=FormatChoice)
    duplicate_keys: DuplicateKeys = "last"

    def __post_init__(self) -> None:
        super().__init__()
        if self.limits.records < 1 or self.limits.bytes < 1:
            raise ValueError(f"a block holds at least one record, not {self.limits}")

    def expand(self, segments: PCollection[Segment]) -> PCollection[Block]:
        return segments | "Read" >> beam.ParDo(
            _ReadFn(
                self.storage,
                self.limits,
                self.progress,
                self.letters,
                self.verify,
                self.format,
                self.duplicate_keys,
            )
        )

    def display_data(self) -> dict[str, Any]:
        return {"records_per_block": self.limits.records, "bytes_per_block": self.limits.bytes}


@dataclass(eq=False)
class _ReadFn(beam.DoFn):
    storage: Storage
    limits: BlockLimits
    progress: Progress
    letters: bool
    verify: Verify
    format: FormatChoice
    duplicate_keys: DuplicateKeys
    _filesystems: dict[str, FileSystem] = field(default_factory=dict, init=False)
    _reader: SegmentReader | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        super().__init__()

    def setup(self) -> None:
        # What Beam and its friends loaded stays for good: a collector that walks it takes a tenth of a run.
        gc.freeze()
        gc.set_threshold(GC_OBJECTS)
        self.progress.attend()
        bases = dict(self.progress.line_bases())
        self._reader = SegmentReader(self._filesystem, self.limits, bases, self.verify, self.format)

    def process(self, segment: Segment) -> Iterator[Block]:
        if drain.is_requested():
            return
        attempt = new_attempt_id()
        done = self.progress.settled_blocks(segment.id, attempt)
        if done is None:
            return
        earlier = self.progress.earlier_sends(segment.id, attempt)
        crash_point("before read")
        for block in self._blocks(segment, attempt, done):
            if drain.is_requested():
                return
            activity.here.moved()
            crash_point("after read")
            if block.ordinal in earlier and not block.provisional:
                block = replace(block, earlier=earlier[block.ordinal])
            opened = open_letters(block) if self.letters and segment.ordered is None else block
            yield refuse_duplicates(opened) if self.duplicate_keys == "refuse" else opened

    def _blocks(self, segment: Segment, attempt: str, done: set[int]) -> Iterator[Block]:
        assert self._reader is not None
        if segment.ordered is None:
            return self._reader.blocks(segment, attempt, done)
        content = self.progress.ordered_content(segment.ordered.name)
        return ordered_blocks(content, segment, attempt, done)

    def _filesystem(self, uri: str) -> FileSystem:
        scheme = scheme_of(uri)
        if scheme not in self._filesystems:
            self._filesystems[scheme] = self.storage.open_to_read(uri)
        return self._filesystems[scheme]
