"""Files and segments of a plan: on disk, in order, each once, and as many as there may be."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.listing import Listing, SourceFile
from pipelines.manifest import Manifest, ManifestUnusable, read_manifest, write_manifest
from pipelines.segment_file import SegmentFile, line_of
from pipelines.state import StateFolder
from tests.servers import S3Server
from transforms.elements import FilePart, Segment
from transforms.storage import Storage, list_objects

DAYS = st.none() | st.dates(dt.date(2020, 1, 1), dt.date(2020, 1, 5))
NAMES = st.text("ab/\udcff\u00e9\U0001f600", min_size=1, max_size=6)
FILES = st.lists(st.builds(SourceFile, DAYS, NAMES, st.integers(0, 1 << 50), st.text(max_size=4)))


def partition(file: SourceFile) -> bytes:
    """Returns what orders partitions: the date, or else the folder."""
    name = file.date.isoformat() if file.date else file.uri.rpartition("/")[0]
    return name.encode("utf-8", "surrogateescape")


@given(FILES, st.booleans(), st.integers(0, 4))
def test_a_listing_is_in_the_order_that_sorting_gives(
    files: list[SourceFile], newest: bool, most_held: int
) -> None:
    listing = Listing(newest)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pipelines.listing.MOST_HELD", most_held)
        for file in files:
            listing.add([file])

    once = {file.uri: file for file in files}
    by_name = sorted(once.values(), key=lambda file: file.uri.encode("utf-8", "surrogateescape"))
    expected = sorted(by_name, key=partition, reverse=newest)
    assert list(listing) == expected
    assert len(listing) == len(expected)
    assert listing.bytes == sum(file.size for file in expected)
    assert listing.empty == sum(file.size == 0 for file in expected)
    days = [dt.date(2020, 1, day) for day in range(1, 8)]
    assert listing.days_without(days[0], days[-1]) == sorted(set(days) - {file.date for file in expected})


def segments(count: int) -> Iterator[Segment]:
    for number in range(count):
        parts = (FilePart(f"/a/{number}", 10, "1"), FilePart(f"/b/{number}", 10, "1", 3, 9, "parquet"))
        yield Segment(f"{number:07d}", parts)


def test_segments_on_disk_look_like_a_tuple_of_them() -> None:
    expected = tuple(segments(5))
    stored = SegmentFile(map(line_of, expected))

    assert stored == expected
    assert expected == stored
    assert stored != expected[:4]
    assert (stored[0], stored[-1], stored[1:3]) == (expected[0], expected[-1], expected[1:3])
    assert list(stored.lines()) == list(map(line_of, expected))
    with pytest.raises(IndexError):
        stored[5]
    with pytest.raises(TypeError):
        hash(stored)


def test_a_manifest_on_a_store_is_written_and_read_piece_by_piece(s3: S3Server) -> None:
    folder = StateFolder(s3.url("manifests/run"), Storage(s3.storage_options))
    manifest = Manifest("run", "now", {"a": 1}, 10, 20, tuple(segments(300)))

    write_manifest(folder, manifest)

    assert read_manifest(folder) == manifest
    content = s3.get("manifests/run/manifest.jsonl")
    s3.put("manifests/run/manifest.jsonl", content.replace(b"/a/7", b"/a/8"))
    with pytest.raises(ManifestUnusable, match="damaged"):
        read_manifest(folder)


@pytest.mark.parametrize("cut", [2, 20, 200])
def test_a_manifest_that_ends_early_is_of_no_use(tmp_path: Path, cut: int) -> None:
    folder = StateFolder(str(tmp_path))
    write_manifest(folder, Manifest("run", "now", {}, 10, 20, tuple(segments(10))))
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])

    with pytest.raises(ManifestUnusable, match="damaged"):
        read_manifest(folder)


class _Paged:
    """A store that answers listings in pages of two."""

    KEYS = ("a/", "a/1", "a/2", "a/3", "a/4")

    def call_s3(self, _method: str, **asked: Any) -> dict[str, Any]:
        first = int(asked.get("ContinuationToken", 0))
        found = [{"Key": key, "Size": 1, "ETag": '"e"'} for key in self.KEYS[first : first + 2]]
        more = first + 2 < len(self.KEYS)
        return {"Contents": found, "IsTruncated": more, "NextContinuationToken": str(first + 2)}

    def call(self, _method: str, _path: str, _bucket: str, **asked: Any) -> dict[str, Any]:
        first = int(asked.get("pageToken", 0))
        page: dict[str, Any] = {"items": [{"name": key, "size": "1"} for key in self.KEYS[first : first + 2]]}
        return {**page, "nextPageToken": str(first + 2)} if first + 2 < len(self.KEYS) else page


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_bucket_is_listed_page_by_page_to_its_end_without_markers_of_folders(scheme: str) -> None:
    found = [path for path, _ in list_objects(_Paged(), scheme, "bucket", "a/")]

    assert found == ["bucket/a/1", "bucket/a/2", "bucket/a/3", "bucket/a/4"]


@pytest.mark.parametrize("most_held", [0, 100_000])
def test_files_are_found_and_dropped_by_their_names(most_held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.listing.MOST_HELD", most_held)
    names = ["/a", "/ä", "/\udcff"]
    files = [SourceFile(None, name, number, "v") for number, name in enumerate(names)]
    listing = Listing()
    listing.add(files)

    assert [listing.find(name) for name in (*names, "/none")] == [*files, None]
    assert files[1] in listing
    listing.drop(["/a", "/none", "/\udcff"])
    assert list(listing) == [files[1]]
