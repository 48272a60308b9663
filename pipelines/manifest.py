"""The manifest: what a run set out to do. Written once, before anything is sent, and never changed."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from mixpanel_http.crash_points import crash_point
from pipelines.state import StateFolder
from transforms.elements import FilePart, Segment

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
    segments: tuple[Segment, ...]
    origin: str | None = None

    @property
    def key(self) -> str:
        """What tells the run from every other, also from one of the same name."""
        return f"{self.run_id} {self.created_at}"


def write_manifest(folder: StateFolder, manifest: Manifest, name: str = NAME) -> None:
    """Writes the manifest: a header, a line a segment, and the checksum of all."""
    crash_point("before manifest")
    lines = [_header(manifest), *(_segment_line(segment) for segment in manifest.segments)]
    content = b"\n".join(lines) + b"\n"
    folder.write(name, content + orjson.dumps({"crc32": zlib.crc32(content)}) + b"\n")
    crash_point("after manifest")


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
        segments=manifest.segments + added.segments,
    )


def _read(folder: StateFolder, name: str) -> Manifest:
    try:
        content = folder.read(name)
    except FileNotFoundError:
        raise ManifestUnusable(f"{folder.uri}: there is no run here") from None
    body, _, last = content.rstrip(b"\n").rpartition(b"\n")
    body += b"\n"
    try:
        if orjson.loads(last)["crc32"] != zlib.crc32(body):
            raise ManifestUnusable(f"{folder.uri_of(name)}: damaged (checksum)")
        head, *rest = body.splitlines()
        header = orjson.loads(head)
        if header["v"] != VERSION:
            raise ManifestUnusable(f"{folder.uri_of(name)}: written by another version ({header['v']})")
        return Manifest(
            header["run_id"],
            header["created_at"],
            header["settings"],
            header["files"],
            header["bytes"],
            tuple(_segments(rest)),
            header.get("origin"),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ManifestUnusable):
            raise
        raise ManifestUnusable(f"{folder.uri_of(name)}: damaged ({type(error).__name__})") from None


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


def _segment_line(segment: Segment) -> bytes:
    parts = [
        [p.uri, p.size, p.version, p.start, p.end, *([p.format] if p.format else [])] for p in segment.parts
    ]
    return orjson.dumps({"id": segment.id, "parts": parts})


def _segments(lines: Iterable[bytes]) -> Iterator[Segment]:
    for line in lines:
        values = orjson.loads(line)
        yield Segment(values["id"], tuple(FilePart(*part) for part in values["parts"]))
