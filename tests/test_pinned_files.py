"""Files of one version, on disk and in real object stores: never half of one and half of another."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from tests.files import local, parts_of
from tests.servers import GcsServer, S3Server
from transforms.elements import FilePart, Segment
from transforms.pinned_files import Changed, pinned
from transforms.segment_reader import BlockLimits, SegmentReader
from transforms.storage import FileSystem, Storage, path_of, version_of

OLD, NEW = b"old\n" * 100, b"new\n" * 100


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest) -> S3Server | GcsServer:
    """A real object store."""
    server: S3Server | GcsServer = request.getfixturevalue(request.param)
    return server


def opened(store: S3Server | GcsServer) -> FileSystem:
    return Storage(store.storage_options).open_to_read(store.url("x"))


def planned(store: S3Server | GcsServer, key: str) -> FilePart:
    """Returns an object as a plan pins it down."""
    filesystem = Storage(store.storage_options).open(store.url(key))
    filesystem.invalidate_cache()
    info = filesystem.info(path_of(store.url(key)))
    return FilePart(store.url(key), info["size"], version_of(info))


def delete(store: S3Server | GcsServer, key: str) -> None:
    filesystem = Storage(store.storage_options).open(store.url(key))
    filesystem.rm_file(path_of(store.url(key)))


def test_an_object_is_read_in_ranges(store: S3Server | GcsServer) -> None:
    store.put("pins/ranges", bytes(range(256)))
    with pinned(opened(store), planned(store, "pins/ranges")) as file:
        assert file.read(0, 256) == bytes(range(256))
        assert file.read(10, 20) == bytes(range(10, 20))
        assert file.read(255, 256) == b"\xff"


def test_an_object_that_is_overwritten_while_it_is_read_is_never_read_as_a_mix(
    store: S3Server | GcsServer,
) -> None:
    store.put("pins/overwritten", OLD)
    with pinned(opened(store), planned(store, "pins/overwritten")) as file:
        assert file.read(0, 200) == OLD[:200]
        store.put("pins/overwritten", NEW)
        with pytest.raises(Changed, match="has changed since the run was planned"):
            file.read(200, 400)


def test_an_object_that_is_deleted_while_it_is_read_is_missing(store: S3Server | GcsServer) -> None:
    store.put("pins/deleted", OLD)
    with pinned(opened(store), planned(store, "pins/deleted")) as file:
        assert file.read(0, 200) == OLD[:200]
        delete(store, "pins/deleted")
        with pytest.raises(FileNotFoundError):
            file.read(200, 400)


@pytest.mark.parametrize("wrong", [399, 401, 100, 40_000])
def test_an_object_that_was_listed_with_a_wrong_size_is_not_read(
    store: S3Server | GcsServer, wrong: int
) -> None:
    store.put("pins/size", OLD)
    part = planned(store, "pins/size")
    with (
        pinned(opened(store), FilePart(part.uri, wrong, part.version)) as file,
        pytest.raises(Changed, match=r"listed with|bytes expected|has changed"),
    ):
        file.read(0, wrong)


def test_an_object_that_was_listed_as_empty_is_looked_at_again(store: S3Server | GcsServer) -> None:
    store.put("pins/empty", b"")
    with pinned(opened(store), planned(store, "pins/empty")) as file:
        assert file.read(0, 0) == b""
    store.put("pins/empty", OLD)
    part = planned(store, "pins/empty")
    with (
        pinned(opened(store), FilePart(part.uri, 0, part.version)) as file,
        pytest.raises(Changed),
    ):
        file.read(0, 0)


# --- on disk ------------------------------------------------------------------------------------------------


def test_a_file_that_another_is_renamed_over_is_read_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(OLD)
    (part,) = parts_of(path)
    with pinned(local(str(path)), part) as file:
        assert file.read(0, 200) == OLD[:200]
        (tmp_path / "b").write_bytes(NEW)
        (tmp_path / "b").rename(path)
        assert file.read(200, 400) == OLD[200:]
    with pinned(local(str(path)), part) as file, pytest.raises(Changed):
        file.read(0, 200)


def test_a_file_that_is_deleted_while_it_is_read_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(OLD)
    with pinned(local(str(path)), parts_of(path)[0]) as file:
        path.unlink()
        assert file.read(0, 400) == OLD


@pytest.mark.parametrize("content", [NEW, OLD + NEW, OLD[:300], b""])
def test_a_file_that_is_written_to_while_it_is_read_has_changed(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(OLD)
    os.utime(path, (1, 1))
    with pinned(local(str(path)), parts_of(path)[0]) as file:
        assert file.read(0, 200) == OLD[:200]
        path.write_bytes(content)
        with pytest.raises(Changed):
            file.read(200, 400)


# --- whole segments -----------------------------------------------------------------------------------------


def lines_read(store: S3Server | GcsServer, parts: list[FilePart], meanwhile: Iterator[None]) -> list[bytes]:
    """Returns the lines of a segment whose objects somebody changes meanwhile, then its problems."""
    reader = SegmentReader(lambda _: opened(store), BlockLimits(10, 1 << 20))
    lines: list[bytes] = []
    for block in reader.blocks(Segment("s", tuple(parts)), "a"):
        lines += block.raw.splitlines()
        next(meanwhile, None)
        lines += [str(note.problem).encode() for note in block.notes]
    return lines


def test_a_segment_never_mixes_two_versions_of_an_object(
    store: S3Server | GcsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.part_lines.CHUNK_BYTES", 40)
    monkeypatch.setattr("transforms.part_lines.HEAD_BYTES", 40)
    monkeypatch.setattr("transforms.segment_reader.JOINED_BYTES", 40)
    for key, content in (("mix/1", b"1\n" * 20), ("mix/2", OLD * 500), ("mix/3", b"3\n" * 20)):
        store.put(key, content)
    parts = [planned(store, f"mix/{n}") for n in (1, 2, 3)]

    def meanwhile() -> Iterator[None]:
        for _ in range(3):
            yield
        store.put("mix/2", NEW * 500)
        yield

    lines = lines_read(store, parts, meanwhile())

    assert lines[:20] == [b"1"] * 20
    assert lines[-23:] == [b"3"] * 20 + [b"None", b"changed", b"None"]
    assert set(lines[20:-23]) == {b"old"}


# --- objects that are kept with Content-Encoding: gzip ------------------------------------------------------


def put_encoded(gcs: GcsServer, key: str, content: bytes) -> None:
    """Stores an object as `gsutil cp -Z` does: compressed, and said to be."""
    boundary = "part"
    about = f'{{"name": "{key}", "contentEncoding": "gzip", "contentType": "application/json"}}'
    body = (
        (
            f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{about}\r\n"
            f"--{boundary}\r\nContent-Type: application/json\r\n\r\n"
        ).encode()
        + gzip.compress(content)
        + f"\r\n--{boundary}--".encode()
    )
    answer = urllib3.request(
        "POST",
        f"{gcs.endpoint_url}/upload/storage/v1/b/{gcs.bucket}/o?uploadType=multipart",
        body=body,
        headers={"Content-Type": f"multipart/related; boundary={boundary}"},
    )
    assert answer.status == 200


@pytest.mark.parametrize("chunk_bytes", [1 << 20, 30])
def test_what_gcs_keeps_with_content_encoding_is_read_as_it_is_stored(
    gcs: GcsServer, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transforms.part_lines.CHUNK_BYTES", chunk_bytes)
    text = b"".join(b"%d\n" % (n * n) for n in range(500))
    put_encoded(gcs, "encoded/a.json", text)
    plain = urllib3.request(
        "GET",
        f"{gcs.endpoint_url}/storage/v1/b/{gcs.bucket}/o/encoded%2Fa.json?alt=media",
        headers={"Accept-Encoding": "identity"},
        decode_content=False,
    )
    assert plain.data == text, "the server decompresses on the way if asked to"

    part = planned(gcs, "encoded/a.json")
    reader = SegmentReader(lambda _: opened(gcs), BlockLimits(2000, 1 << 20))
    block, end = reader.blocks(Segment("s", (part,)), "a")

    assert part.size < len(text)
    assert block.raw == text
    assert [note.problem for note in end.notes] == [None]
