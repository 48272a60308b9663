"""What is believed of several attempts at one segment, so that no record and no letter counts twice."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from pipelines.attempt import DEAD_LETTERS, UNDELIVERED
from pipelines.ledger_lines import BlockRecord, DeadFile, ProgressLine, read_progress, seed
from pipelines.state import StateFolder
from transforms.attempt_ids import attempt_began_at

_NOWHERE: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a segment that is not done.

    Attributes:
        settled: blocks that need not be sent again, by ordinal.
        open: the others, as they were last.
        dead: the committed letters of the settled ones.
        began_at: when its last attempt began, in seconds since the epoch.
        ended_at: when that last wrote.
    """

    settled: Mapping[int, BlockRecord]
    open: tuple[BlockRecord, ...]
    dead: tuple[DeadFile, ...]
    began_at: float = 0.0
    ended_at: float = 0.0


class Letters:
    """The files of letters of a run, as they are on disk or in the store."""

    def __init__(self, folder: StateFolder, prefix: str | None = None) -> None:
        """Lists nothing yet; with a prefix only what begins with it is of interest."""
        self._folder = folder
        self._prefix = prefix or ""
        self._sizes: dict[str, int] | None = None

    def are_whole(self, file: DeadFile) -> bool:
        """Returns whether a file is at least what was committed of it.

        On a local disk its content is read, too; what an object store has taken it keeps.
        """
        if self._sizes is None:
            names = partial(self._folder.names, prefix=self._prefix)
            self._sizes = names(DEAD_LETTERS) | names(UNDELIVERED)
        if self._sizes.get(file.name, -1) < file.bytes:
            return False
        if not self._folder.is_local:
            return True
        return zlib.crc32(self._folder.read(file.name)[: file.bytes]) == file.crc32


def lines_by_name(folder: StateFolder, run: str, names: list[str]) -> dict[str, list[ProgressLine]]:
    """Returns what stands in files of progress, as far as they are whole."""
    return {
        name: [line for line, _, _ in read_progress(content, seed(run, name))]
        for name, content in folder.read_all(names)
    }


def believed(attempts: Mapping[str, list[ProgressLine]], letters: Letters) -> Known:
    """Returns what is known of a segment from the progress of all attempts at it."""
    sound = {name: list(_sound(lines, letters)) for name, lines in attempts.items()}
    settled, dead = _settled(sound)
    last = max(sound, key=attempt_of, default="")
    ended_at = sound[last][-1].at if sound.get(last) else 0.0
    began_at = min(attempt_began_at(attempt_of(last)), ended_at) if last else 0.0
    return Known(settled, tuple(_open(sound, settled)), dead, began_at, ended_at)


def segment_of(name: str) -> str:
    """Returns the segment that a file of the ledger is about."""
    return name.rpartition("/")[2].split(".", 1)[0]


def attempt_of(name: str) -> str:
    """Returns the attempt that a file of the ledger is about."""
    return name.rpartition("/")[2].partition(".")[2].partition(".")[0]


def _settled(
    attempts: Mapping[str, list[ProgressLine]],
) -> tuple[dict[int, BlockRecord], tuple[DeadFile, ...]]:
    """Returns the settled blocks and their letters.

    Each attempt is taken up to the first block that is settled elsewhere already. A file of letters is good
    up to a line of progress, not for this block or that; so no letter counts twice.
    """
    blocks: dict[int, BlockRecord] = {}
    dead: dict[str, DeadFile] = {}
    for _, lines in sorted(attempts.items(), key=lambda item: (-_settled_count(item[1]), item[0])):
        for line in lines:
            new = {block.ordinal: block for block in line.blocks if block.settled and not block.end}
            if new.keys() & blocks.keys():
                break
            blocks |= new
            if line.dead:
                dead[line.dead.name] = line.dead
    return blocks, tuple(dead.values())


def _open(
    attempts: Mapping[str, list[ProgressLine]], settled: Mapping[int, BlockRecord]
) -> Iterator[BlockRecord]:
    """Yields the blocks that are not settled, as the last attempt that came to them left them.

    What an attempt settled where it is not believed is not among them: its letters are not committed.
    Provisional ones are of the last attempt only: they take the place of all blocks from the first of them
    on. Where some of these are settled, that counts, and of the last attempt only what it could not read.
    """
    newest_first = [attempts[name] for name in sorted(attempts, key=attempt_of, reverse=True)]
    found: dict[int, BlockRecord] = {}
    shifts_at = _NOWHERE
    for age, lines in enumerate(newest_first):
        blocks = [block for line in lines for block in line.blocks]
        if age == 0:
            shifts_at = min((block.ordinal for block in blocks if block.provisional), default=_NOWHERE)
            if any(ordinal >= shifts_at for ordinal in settled):
                yield from (block for block in blocks if block.end)
                shifts_at = _NOWHERE
            elif shifts_at < _NOWHERE:
                yield from (block for block in blocks if block.provisional)
        for block in blocks:
            is_left = block.ordinal < shifts_at and block.ordinal not in settled
            if is_left and not block.provisional and (block.end or not block.settled):
                found.setdefault(block.ordinal, block)
    yield from found.values()


def _settled_count(lines: Iterable[ProgressLine]) -> int:
    return sum(block.settled for line in lines for block in line.blocks)


def _sound(lines: list[ProgressLine], letters: Letters) -> Iterator[ProgressLine]:
    """Yields lines as far as their letters are whole; a later line vouches for a file's beginning, too."""
    last: dict[str, int] = {}
    for index, line in enumerate(lines):
        if line.dead:
            last[line.dead.name] = index
    whole = {index: letters.are_whole(dead) for index in last.values() if (dead := lines[index].dead)}
    for line in lines:
        if line.dead and not whole[last[line.dead.name]] and not letters.are_whole(line.dead):
            return
        if not all(letters.are_whole(b.open_letters) for b in line.blocks if b.open_letters):
            return
        yield line
