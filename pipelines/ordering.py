"""Plans a run whose updates are sent in the order of their times: sorts them, and keeps them sorted.

Where the order is not the input's, all of it has to be read before the first update is sent. So it is read,
sorted through files of this process, and written as segments into `<run>/ordered/`, before there is a
manifest: what is sent, and in which blocks, never changes then. Once all is done it is removed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

from mixpanel_http.crash_points import crash_point
from pipelines.config import Config
from pipelines.listing import SourceFile
from pipelines.manifest import Manifest
from pipelines.plan import SourceUnreadable, plan_segments
from pipelines.state import StateFolder, StateUnusable
from transforms.elements import FileNote, FilePart, Ordered, Segment
from transforms.letters_again import open_letters
from transforms.merge_sort import Row, merge_sorted
from transforms.ordered_blocks import ordered_files, rows_of
from transforms.segment_reader import BlockLimits, SegmentReader
from transforms.storage import FileSystem, Storage, path_of, scheme_of

FOLDER: Final = "ordered"
SETTING: Final = "records.order_by"


def ordered_segments(config: Config, folder: StateFolder, files: Collection[SourceFile]) -> Iterator[Segment]:
    """Yields the segments of a run in the order of the updates' times, each once its lines are written.

    Raises:
        SourceUnreadable: if a file cannot be read, and might be another time.
        StateUnusable: if there is no room to sort, or the run's folder cannot be written.
    """
    remove_ordered(folder)  # of a start that ended while it planned
    room = path_of(folder.uri) if folder.is_local else tempfile.gettempdir()
    try:
        yield from _sorted(config, folder, files, room)
    except OSError as error:
        raise StateUnusable(
            f"{room}: the updates cannot be sorted there: {error.strerror or error}; "
            "it needs as much room as the input takes unpacked"
        ) from None


def _sorted(
    config: Config, folder: StateFolder, files: Collection[SourceFile], room: str
) -> Iterator[Segment]:
    reading = _Reading(config)
    total = sum(file.size for file in files)
    rows = merge_sorted(reading.rows(files), room)
    for index, (parts, lines, content) in enumerate(
        ordered_files(rows, reading.files, _limits(config), reading.notes)
    ):
        name = f"{FOLDER}/{index:07d}.gz"
        crash_point("before ordered")
        folder.write(name, content)
        share = total * lines // max(1, reading.lines)
        yield Segment(f"{index:07d}", parts, Ordered(name, share))


def remove_ordered(folder: StateFolder) -> None:
    """Removes the sorted copy of a run's input."""
    for name in folder.names(FOLDER):
        crash_point("before removal of ordered")
        folder.remove(name)


def is_ordered(manifest: Manifest) -> bool:
    """Returns whether a run's segments are a sorted copy of its input."""
    return manifest.settings.get(SETTING) is not None


def _limits(config: Config) -> BlockLimits:
    return BlockLimits(config.limits.records_per_request, config.limits.bytes_per_request)


@dataclass(slots=True, eq=False)
class _Reading:
    """Reads all of a run's input, and knows then which files it was.

    Attributes:
        config: the run's.
        files: those that were read, by their numbers.
        notes: how reading ended, by the number of the file, for those that have no lines or were damaged.
        lines: lines in all of them.
    """

    config: Config
    files: list[FilePart] = field(default_factory=list)
    notes: dict[int, FileNote] = field(default_factory=dict)
    lines: int = 0
    _last: Row | None = None
    _opened: dict[str, FileSystem] = field(default_factory=dict)

    def rows(self, files: Collection[SourceFile]) -> Iterator[Row]:
        """Yields the lines of some files, in their order.

        Raises:
            SourceUnreadable: if a file cannot be read, and might be another time.
        """
        source, choice = self.config.source, self.config.format_choice()
        reader = SegmentReader(self._filesystem, _limits(self.config), {}, source.verify, choice)
        for segment in plan_segments(files, Storage(source.storage_options), choice):
            yield from self._rows_of(segment, reader)

    def _rows_of(self, segment: Segment, reader: SegmentReader) -> Iterator[Row]:
        numbers = [self._number(part) for part in segment.parts]
        letters, order_by = self.config.source.format == "dead_letters", str(self.config.records.order_by)
        for block in reader.blocks(segment, ""):
            rows = rows_of(open_letters(block) if letters else block, order_by, numbers, self._last)
            self._last = rows[-1] if rows else self._last
            yield from rows
            for note in block.notes:
                self._note(numbers[note.part], note)

    def _number(self, part: FilePart) -> int:
        """Returns the number of a part's file; the parts of a file come one after the other."""
        if not self.files or self.files[-1].uri != part.uri:
            self.files.append(FilePart(part.uri, part.size, part.version))
        return len(self.files) - 1

    def _note(self, number: int, note: FileNote) -> None:
        if note.may_heal or note.problem in ("changed", "broken_link"):
            raise SourceUnreadable(
                f"{note.uri}: {note.problem}: {note.detail}: updates are sent in the order of their times "
                f"({SETTING}), so that every file has to be read before the first one is sent; "
                "nothing is sent yet: start again when it can be read"
            )
        self.lines += note.lines
        known = self.notes.get(number)
        if (note.problem or not note.lines) and (known is None or known.problem is None):
            self.notes[number] = note

    def _filesystem(self, uri: str) -> FileSystem:
        scheme = scheme_of(uri)
        if scheme not in self._opened:
            self._opened[scheme] = Storage(self.config.source.storage_options).open_to_read(uri)
        return self._opened[scheme]
