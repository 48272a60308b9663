"""The manifest: read back as it was written, or not at all."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pipelines.manifest import (
    NAME,
    Manifest,
    ManifestUnusable,
    add_to_manifest,
    read_manifest,
    write_manifest,
)
from pipelines.state import StateFolder
from transforms.elements import FilePart, Segment

SEGMENTS = tuple(
    Segment(f"{n:07d}", (FilePart(f"/a/{n}", 10, "v", 0, 5), FilePart("/b", 3, ""))) for n in range(9)
)
MANIFEST = Manifest("it", "2024-01-01", {"source.uri": ["/a/*"]}, 10, 93, SEGMENTS)


def test_a_manifest_is_read_back_with_what_was_added(tmp_path: Path) -> None:
    folder = StateFolder(str(tmp_path))
    write_manifest(folder, MANIFEST)
    assert read_manifest(folder) == MANIFEST
    more = Manifest("it", "2024-01-01", {}, 1, 7, (Segment("0000009", (FilePart("/c", 7, ""),)),))
    both = add_to_manifest(folder, MANIFEST, more)
    assert read_manifest(folder) == both
    assert (both.files, both.bytes, len(both.segments), both.settings) == (11, 100, 10, MANIFEST.settings)


def test_a_missing_manifest_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ManifestUnusable, match="there is no run here"):
        read_manifest(StateFolder(str(tmp_path)))


@pytest.mark.parametrize("number", range(60))
def test_a_damaged_manifest_is_refused_by_name(tmp_path: Path, number: int) -> None:
    folder = StateFolder(str(tmp_path))
    write_manifest(folder, MANIFEST)
    path = tmp_path / NAME
    content = path.read_bytes()
    chance = random.Random(number)
    at = chance.randrange(len(content) - 1)
    lines = content.splitlines(keepends=True)
    path.write_bytes(
        [
            content[:at],
            content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :],
            content[:at] + bytes(len(content) - at),
            b"".join(lines[: at % 8 + 1] + lines[at % 8 + 2 :]),
            b"",
        ][number % 5]
    )
    with pytest.raises(ManifestUnusable, match=NAME):
        read_manifest(folder)
