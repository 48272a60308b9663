"""The manifest: what a run set out to do. Written once, before anything is sent, and never changed."""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from mixpanel_http.crash_points import crash_point
from pipelines.segment_file import SegmentFile, line_of
from pipelines.state import StateFolder
from transforms.elements import Segment

NAME: Final = "manifest.jsonl"
ADDITIONS: Final = "manifest_added"  # by --allow-new
VERSION: Final = 1


class ManifestUnusable(ValueError):
    """The manifest is missing, damaged or of another version; nothing can be resumed from it."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A run's plan.

    Attributes:
        run_id: the run.
        created_at: when it was planned, ISO 8601.
        settings: everything that decides which ids and blocks come out, by its path in the configuration.
        files: number of input files.
        bytes: their bytes, as stored.
        segments: the units of work, in the order in which they are sent.
        origin: the run whose records this one replays, or None.
    """

    run_id: str
    created_at: str
    settings: Mapping[str, Any]
    files: int
    bytes: int
    segments: Sequence[Segment]
    origin: str | None = None

    @property
    def key(self) -> str:
        """What tells the run from every other, also from one of the same name."""
        return f"{self.run_id} {self.created_at}"


def write_manifest(folder: StateFolder, manifest: Manifest, name: str = NAME) -> None:
    """Writes the manifest: a header, a line a segment, and the checksum of all."""
    crash_point("before manifest")
    folder.write_pieces(name, _with_checksum(_lines(manifest)))
    crash_point("after manifest")


def _lines(manifest: Manifest) -> Iterator[bytes]:
    yield _header(manifest) + b"\n"
    segments = manifest.segments
    yield from segments.lines() if isinstance(segments, SegmentFile) else map(line_of, segments)


def _with_checksum(lines: Iterable[bytes]) -> Iterator[bytes]:
    checksum = 0
    for line in lines:
        checksum = zlib.crc32(line, checksum)
        yield line
    yield orjson.dumps({"crc32": checksum}) + b"\n"


def add_to_manifest(folder: StateFolder, manifest: Manifest, added: Manifest) -> Manifest:
    """Writes what is added to a run beside its manifest, which never changes, and returns both as one."""
    count = len(_additions(folder))
    write_manifest(folder, added, f"{ADDITIONS}/{count + 1:04d}.jsonl")
    return _together(manifest, added)


def read_manifest(folder: StateFolder) -> Manifest:
    """Returns the manifest of a run, with what was added to it.

    Raises:
        ManifestUnusable: if there is none or it is not whole.
    """
    manifest = _read(folder, NAME)
    for name in _additions(folder):
        manifest = _together(manifest, _read(folder, name))
    return manifest


def _additions(folder: StateFolder) -> list[str]:
    return sorted(name for name in folder.names(ADDITIONS) if name.endswith(".jsonl"))


def _together(manifest: Manifest, added: Manifest) -> Manifest:
    return dataclasses.replace(
        manifest,
        files=manifest.files + added.files,
        bytes=manifest.bytes + added.bytes,
        segments=SegmentFile(map(line_of, itertools.chain(manifest.segments, added.segments))),
    )


def _read(folder: StateFolder, name: str) -> Manifest:
    """Returns a manifest, of which no more than a line is in memory at a time."""
    try:
        with folder.open(name) as file:
            head = file.readline()
            body = _Body(file, head)
            segments = SegmentFile(body)
    except FileNotFoundError:
        folder.check_bucket()
        raise ManifestUnusable(f"{folder.uri}: there is no run here") from None
    try:
        if orjson.loads(body.last)["crc32"] != body.checksum:
            raise ManifestUnusable(f"{folder.uri_of(name)}: damaged (checksum)")
        header = orjson.loads(head)
        if header["v"] != VERSION:
            raise ManifestUnusable(f"{folder.uri_of(name)}: written by another version ({header['v']})")
        return Manifest(
            header["run_id"],
            header["created_at"],
            header["settings"],
            header["files"],
            header["bytes"],
            segments,
            header.get("origin"),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ManifestUnusable):
            raise
        raise ManifestUnusable(f"{folder.uri_of(name)}: damaged ({type(error).__name__})") from None


class _Body:
    """The lines between a manifest's header and its last line, which holds the checksum of all before it."""

    def __init__(self, lines: Iterable[bytes], head: bytes) -> None:
        self._lines = lines
        self.checksum = zlib.crc32(head)
        self.last = b""

    def __iter__(self) -> Iterator[bytes]:
        for line in self._lines:
            if self.last:
                self.checksum = zlib.crc32(self.last, self.checksum)
                yield self.last
            self.last = line


def read_origin(folder: StateFolder) -> str | None:
    """Returns the run that a run replays, or None; a manifest that cannot be read is for others to tell."""
    try:
        header = orjson.loads(folder.read(NAME).partition(b"\n")[0])
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    origin = header.get("origin") if isinstance(header, dict) else None
    return origin if isinstance(origin, str) else None


def _header(manifest: Manifest) -> bytes:
    return orjson.dumps(
        {
            "v": VERSION,
            "run_id": manifest.run_id,
            "created_at": manifest.created_at,
            "settings": dict(manifest.settings),
            "files": manifest.files,
            "bytes": manifest.bytes,
            **({"origin": manifest.origin} if manifest.origin else {}),
        }
    )
