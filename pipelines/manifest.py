"""The manifest: what a run set out to do. Written once, before anything is sent, and never changed."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from pipelines.state import StateFolder
from transforms.elements import FilePart, Segment

NAME: Final = "manifest.jsonl"
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


def write_manifest(folder: StateFolder, manifest: Manifest) -> None:
    """Writes the manifest: a header, a line a segment, and the checksum of all."""
    lines = [_header(manifest), *(_segment_line(segment) for segment in manifest.segments)]
    content = b"\n".join(lines) + b"\n"
    folder.write(NAME, content + orjson.dumps({"crc32": zlib.crc32(content)}) + b"\n")


def read_manifest(folder: StateFolder) -> Manifest:
    """Returns the manifest of a run.

    Raises:
        ManifestUnusable: if there is none or it is not whole.
    """
    try:
        content = folder.read(NAME)
    except FileNotFoundError:
        raise ManifestUnusable(f"{folder.uri}: there is no run here") from None
    body, _, last = content.rstrip(b"\n").rpartition(b"\n")
    body += b"\n"
    try:
        if orjson.loads(last)["crc32"] != zlib.crc32(body):
            raise ManifestUnusable(f"{folder.uri_of(NAME)}: damaged (checksum)")
        head, *rest = body.splitlines()
        header = orjson.loads(head)
        if header["v"] != VERSION:
            raise ManifestUnusable(f"{folder.uri_of(NAME)}: written by another version ({header['v']})")
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
        raise ManifestUnusable(f"{folder.uri_of(NAME)}: damaged ({type(error).__name__})") from None


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
    parts = [[p.uri, p.size, p.version, p.start, p.end] for p in segment.parts]
    return orjson.dumps({"id": segment.id, "parts": parts})


def _segments(lines: Iterable[bytes]) -> Iterator[Segment]:
    for line in lines:
        values = orjson.loads(line)
        yield Segment(values["id"], tuple(FilePart(*part) for part in values["parts"]))
