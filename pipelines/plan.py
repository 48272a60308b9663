"""Plans a run: lists the files, pins each one, cuts them into segments in the order they are sent."""

from __future__ import annotations

import datetime as dt
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, Literal

from pipelines.listing import Listing, SourceFile
from source_formats.detection import HEAD_BYTES, Format
from source_formats.lines import FormatProblem
from source_formats.opening import FormatChoice
from transforms.compression import SUFFIXES, compression_of
from transforms.elements import FilePart, Segment
from transforms.file_text import encoding_of
from transforms.storage import (
    FileSystem,
    Storage,
    gcs_refusals,
    list_objects,
    path_of,
    scheme_of,
    storage_errors,
    uri_of,
    version_of,
)
from transforms.store_refusals import refusal

SEGMENT_BYTES: Final = 32 << 20  # of a plain file: small enough to repeat cheaply, large enough to number few
SMALL_BYTES: Final = 4 << 20  # files up to this size are read together, so that requests are full
PACK_BYTES: Final = 32 << 20
PACK_FILES: Final = 8192  # of ten records each: 41 requests, of which one is not full
# How long a stretch is that is read by itself, in segments of lines: Parquet's row groups are mostly of
# 128 MiB, and each stretch reads the footer anew.
_STRETCHES: Final[dict[Format, int]] = {"parquet": 4}
_MAGIC: Final = re.compile(r"[*?\[]")
_DATE: Final = r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"


class NothingMatched(LookupError):
    """No input file matches; the message says what was looked for."""


class SourceUnreadable(RuntimeError):
    """The source cannot be listed; the message says where and why."""


@dataclass(frozen=True, slots=True)
class SourcePattern:
    """What to read: patterns, the dates among them, and the order."""

    uris: Sequence[str]
    first_date: dt.date | None = None
    last_date: dt.date | None = None
    order: Literal["newest_first", "oldest_first"] = "newest_first"


def list_files(source: SourcePattern, storage: Storage) -> Listing:
    """Returns the files that match, each once, in the order in which they are to be sent.

    Raises:
        NothingMatched: if there is none; without dates also if there is none for one of several URIs.
        SourceUnreadable: if the storage refuses or a folder does not exist.
    """
    found, barren = find_files(source, storage)
    if not len(found) or (barren and source.first_date is None):
        hint = next(filter(None, map(_hint, barren)), "")
        others = "; the others of source.uri have files" if len(found) else ""
        raise NothingMatched(f"no file matches {', '.join(barren)}{_dates_text(source)}{others}{hint}")
    return found


def find_files(source: SourcePattern, storage: Storage) -> tuple[Listing, Sequence[str]]:
    """Returns the files that match, and the URIs that none does.

    Raises:
        SourceUnreadable: if the storage refuses or a folder does not exist.
    """
    found = Listing(source.order == "newest_first")
    barren = []
    for uri in source.uris:
        files = _matching(uri, source, storage)
        first = next(files, None)
        if first is None:
            barren.append(uri)
        else:
            found.add(itertools.chain((first,), files))
    return found, barren


def _hint(uri: str) -> str:
    """Returns what to say of a local path that names no file."""
    path = path_of(uri) if scheme_of(uri) == "file" else ""
    if os.path.isdir(path):
        return f"; {uri} is a folder: for all files in it write {uri}/**"
    if os.path.isfile(path):
        return "; there is a file of that very name, but [ and {date} stand for others: write [[] and [{]"
    return f"; {uri} is a pipe, a socket or a device, no file" if os.path.exists(path) else ""


def cut_segments(
    files: Iterable[SourceFile], format_of: Callable[[SourceFile], Format | None]
) -> Iterator[Segment]:
    """Yields the segments: ranges of large plain files, whole compressed files, packs of small files.

    Args:
        files: in the order in which they are to be sent.
        format_of: returns what a large one holds, or None if it can only be read as a whole.
    """
    number = 0
    pack: list[FilePart] = []
    packed = 0
    for file in files:
        _, uri, size, version = file
        small = size <= SMALL_BYTES
        if pack and (not small or packed + size > PACK_BYTES or len(pack) >= PACK_FILES):
            yield Segment(f"{number:07d}", tuple(pack))
            number, pack, packed = number + 1, [], 0
        if small:
            pack.append(FilePart(uri, size, version))
            packed += size
            continue
        for part in _ranges(file, format_of(file)):
            yield Segment(f"{number:07d}", (part,))
            number += 1
    if pack:
        yield Segment(f"{number:07d}", tuple(pack))


def plan_segments(
    files: Iterable[SourceFile],
    storage: Storage,
    choice: FormatChoice = FormatChoice(),  # noqa: B008 - immutable
) -> Iterator[Segment]:
    """Yields the run's segments, after a look at the first bytes of each file that would be split."""
    filesystems: dict[str, FileSystem] = {}
    yield from cut_segments(files, lambda file: _splittable(file, storage, choice, filesystems))


def _splittable(
    file: SourceFile, storage: Storage, choice: FormatChoice, filesystems: dict[str, FileSystem]
) -> Format | None:
    """Returns the format of a file that can be read in parts, or None."""
    if file.size <= SEGMENT_BYTES or any(file.uri.endswith(suffix) for suffix in SUFFIXES):
        return None
    scheme = scheme_of(file.uri)
    if scheme not in filesystems:
        filesystems[scheme] = storage.open_to_read(file.uri)
    try:
        with gcs_refusals():
            head = filesystems[scheme].cat_file(path_of(file.uri), start=0, end=HEAD_BYTES)
        if compression_of(head) is not None or encoding_of(head) is not None:
            return None
        found = choice.format_of(head, file.uri)
    except FormatProblem:
        return None  # reading it will tell what is wrong
    except storage_errors():
        return None  # likewise
    return found if choice.can_be_cut(found, head) else None


def _ranges(file: SourceFile, format: Format | None) -> Iterator[FilePart]:
    if format is None or file.size <= SEGMENT_BYTES:
        yield FilePart(file.uri, file.size, file.version)
        return
    stretch = SEGMENT_BYTES * _STRETCHES.get(format, 1)
    told = None if format == "ndjson" else format
    for start in range(0, file.size, stretch):
        yield FilePart(file.uri, file.size, file.version, start, min(start + stretch, file.size), told)


def _dates_text(source: SourcePattern) -> str:
    return f" from {source.first_date} to {source.last_date}" if source.first_date else ""


def _matching(uri: str, source: SourcePattern, storage: Storage) -> Iterator[SourceFile]:
    scheme = scheme_of(uri)
    filesystem = storage.open(uri)
    pattern = path_of(uri)
    matches = _compile(pattern).fullmatch
    dated = "{date}" in pattern
    for prefix in _prefixes(pattern, source):
        for path, size, version in _find(filesystem, scheme, prefix, pattern):
            match = matches(path)
            if match is None:
                continue
            if not path.isascii():
                _check_name(path)
            text = match["date"] if dated else None
            date = _date(text) if text else None
            if text and (date is None or not _in_range(date, source)):
                continue
            yield SourceFile(date, uri_of(scheme, path), size, version)


def _check_name(path: str) -> None:
    """Refuses a name that cannot be written down, in the manifest or anywhere else."""
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
        raise SourceUnreadable(f"{shown}: the name is no UTF-8; rename the file") from None


def _in_range(date: dt.date, source: SourcePattern) -> bool:
    return (source.first_date is None or date >= source.first_date) and (
        source.last_date is None or date <= source.last_date
    )


def _date(text: str) -> dt.date | None:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        return None


def literally(path: str) -> str:
    """Returns a pattern that matches a path alone, whatever is in its name.

    >>> literally("/state[1]/{date}/a*"), literally("/state/a")
    ('/state[[]1]/[{]date}/a[*]', '/state/a')
    """
    return re.sub(r"[*?\[]|\{(?=date\})", r"[\g<0>]", path)


def _compile(pattern: str) -> re.Pattern[str]:
    """Returns the regular expression of a glob: `*` and `?` within a folder, `**` over folders, `{date}`."""
    out, i = "", 0
    while i < len(pattern):
        if pattern.startswith("**/", i):
            out, i = out + "(?:.*/)?", i + 3
        elif pattern.startswith("**", i):
            out, i = out + ".*", i + 2
        elif pattern.startswith("{date}", i):
            out, i = out + _DATE, i + 6
        elif pattern[i] in "*?":
            out, i = out + ("[^/]*" if pattern[i] == "*" else "[^/]"), i + 1
        elif pattern[i] == "[" and "]" in pattern[i + 2 :]:
            end = pattern.index("]", i + 2)
            inside = re.sub(r"[\\\[&~|]", r"\\\g<0>", pattern[i + 1 : end])
            out, i = out + "[" + ("^" + inside[1:] if inside[0] == "!" else inside) + "]", end + 1
        else:
            out, i = out + re.escape(pattern[i]), i + 1
    return re.compile(out, re.DOTALL)  # a name may have more than one line


def _prefixes(pattern: str, source: SourcePattern) -> list[str]:
    """Returns the fixed beginnings to list: for a range of dates only as wide as the dates have in common."""
    before, date, _ = pattern.partition("{date}")
    wild = _MAGIC.search(before)
    if wild:
        return [before[: wild.start()]]
    if not date:
        return [pattern]
    if source.first_date and source.last_date:
        return [before + _common(source.first_date.isoformat(), source.last_date.isoformat())]
    return [before]


def _common(first: str, last: str) -> str:
    """Returns what two dates begin with alike.

    >>> _common("2024-01-29", "2024-02-03")
    '2024-0'
    """
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=True)) if a != b), len(first))
    return first[:same]


def _find(filesystem: FileSystem, scheme: str, prefix: str, pattern: str) -> Iterator[tuple[str, int, str]]:
    """Yields (path, size, version) of the files below a prefix; on disk only as deep as the pattern goes."""
    folder, _, _ = prefix.rpartition("/")
    if scheme == "file":
        depth = None if "**" in pattern else pattern.count("/") - folder.count("/")
        spelled = pattern.partition("**")[0].count("/") - folder.count("/")
        yield from _walk(folder or "/", prefix, depth, spelled)
        return
    if "/" not in prefix:
        raise SourceUnreadable(f"{pattern}: the bucket's name must be written out")
    bucket, _, key = prefix.partition("/")
    try:
        for path, info in list_objects(filesystem, scheme, bucket, key):
            yield path, int(info["size"]), version_of(info)
    except storage_errors() as error:
        uri = uri_of(scheme, pattern)
        raise SourceUnreadable(f"{uri}: cannot be listed: {refusal(error, uri, 'listed')}") from None


def _walk(folder: str, prefix: str, depth: int | None, spelled: int) -> Iterator[tuple[str, int, str]]:
    """Yields (path, size, version) of local files. Unlike fsspec's, it skips nothing that it may not read.

    Args:
        folder: where to begin.
        prefix: what all paths begin with.
        depth: how many levels to go down, or None for all.
        spelled: on how many of them folders may be links; below, where `**` goes, they might lead in circles.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=attrgetter("name"))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise SourceUnreadable(f"{folder}: cannot be listed: {error.strerror}") from None
    for entry in found:
        path = entry.path
        if not (path.startswith(prefix) or prefix.startswith(path)):
            continue
        if entry.is_symlink() and not os.path.exists(path):  # to nothing, or to itself
            yield path, 0, ""  # reading it will tell
        elif entry.is_dir(follow_symlinks=spelled > 1):
            if depth is None or depth > 1:
                yield from _walk(path, prefix, None if depth is None else depth - 1, spelled - 1)
        elif entry.is_file():
            stat = entry.stat()
            yield path, stat.st_size, str(stat.st_mtime)
