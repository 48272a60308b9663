"""Reads files of one version: what is overwritten while it is read is never half old and half new.

The plan pinned each file by size and version. Disk: one open file, looked at again behind each read. S3 and
GCS: every request asks for that version and no other. Anything else is looked at before and behind each read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

from fsspec.implementations.local import LocalFileSystem

from transforms.elements import FilePart
from transforms.storage import FileSystem, gcs_refusals, path_of, storage_errors, version_of

_TO_READ: Final = os.O_RDONLY | os.O_CLOEXEC
_TRIES: Final = 5  # for an answer that breaks off; refusals are retried by the store's client


class Changed(Exception):
    """The file is not the one that was planned."""


Fetched = bytes | BaseException  # what is in a file, or why it could not be read


class PinnedFile(Protocol):
    """One version of a file."""

    def read(self, start: int, end: int) -> bytes:
        """Returns the bytes from one offset to another.

        Raises:
            Changed: if the file is another one by now.
            FileNotFoundError: if it is gone.
        """
        ...


@contextmanager
def pinned(filesystem: FileSystem, part: FilePart) -> Iterator[PinnedFile]:
    """Opens the version of a file that was planned.

    Raises:
        Changed: if the file is another one by now.
        FileNotFoundError: if it is gone.
    """
    protocols = getattr(type(filesystem), "protocol", ())
    if isinstance(filesystem, LocalFileSystem):
        file = _LocalFile(part)
        try:
            yield file
        finally:
            file.close()
    elif "s3" in protocols:
        yield _S3Object(filesystem, part)
    elif "gs" in protocols:
        yield _GcsObject(filesystem, part)
    else:
        yield _WatchedFile(filesystem, part)


def read_files(filesystem: FileSystem, parts: Sequence[FilePart]) -> list[Fetched]:
    """Returns all of some small files, in the versions that were planned, or why one could not be read."""
    if isinstance(filesystem, LocalFileSystem):
        return [_read_local(filesystem, part) for part in parts]
    return [_read_whole(filesystem, part) for part in parts]


def _read_whole(filesystem: FileSystem, part: FilePart) -> Fetched:
    try:
        with pinned(filesystem, part) as file:
            return file.read(0, part.size)
    except Changed as error:
        return error
    except storage_errors() as error:
        return error


def _read_local(filesystem: FileSystem, part: FilePart) -> Fetched:
    """Returns the same by four calls of the system and little else: each step counts in a small file.

    What does not go well is tried again with care, which tells what is wrong.
    """
    uri, size, version, _, _, _ = part
    try:
        descriptor = os.open(uri if uri[0] == "/" else path_of(uri), _TO_READ)
        try:
            content = os.read(descriptor, size)
            found = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        return _read_whole(filesystem, part)
    if len(content) == size == found.st_size and str(found.st_mtime) == version:
        return content
    return _read_whole(filesystem, part)


class _LocalFile:
    """An open file: one that another is renamed over stays as it was; one that is written to is told."""

    def __init__(self, part: FilePart) -> None:
        self._part = part
        path = part.uri if part.uri.startswith("/") else path_of(part.uri)
        self._descriptor = os.open(path, _TO_READ)

    def read(self, start: int, end: int) -> bytes:
        data = os.pread(self._descriptor, end - start, start)
        while 0 < len(data) < end - start:  # one call gives 2 GiB at most
            more = os.pread(self._descriptor, end - start - len(data), start + len(data))
            if not more:
                break
            data += more
        found = os.fstat(self._descriptor)
        if found.st_size != self._part.size or str(found.st_mtime) != self._part.version:
            raise Changed(_CHANGED)
        return _whole(data, start, end)

    def close(self) -> None:
        os.close(self._descriptor)


class _S3Object:
    """An object of one ETag."""

    def __init__(self, filesystem: Any, part: FilePart) -> None:
        self._filesystem = filesystem
        self._part = part
        # s3fs's own split takes what follows a "?" in a key for something else.
        self._bucket, _, self._key = path_of(part.uri).partition("/")

    def read(self, start: int, end: int) -> bytes:
        from fsspec.asyn import sync

        if start == end:
            _check(self._filesystem, self._part)
            return b""
        try:
            data, told = sync(self._filesystem.loop, self._get, start, end)
        except OSError as error:
            answer = getattr(error.__cause__, "response", {})
            if answer.get("Error", {}).get("Code") in ("PreconditionFailed", "412", "InvalidRange", "416"):
                raise Changed(_CHANGED) from None
            raise
        _check_size(told, self._part)
        return _whole(data, start, end)

    async def _get(self, start: int, end: int) -> tuple[bytes, str]:
        from s3fs.core import S3_RETRYABLE_ERRORS

        for attempt in range(_TRIES):
            answer = await self._filesystem._call_s3(
                "get_object",
                Bucket=self._bucket,
                Key=self._key,
                Range=f"bytes={start}-{end - 1}",
                IfMatch=f'"{self._part.version}"',
            )
            try:
                async with answer["Body"] as body:
                    return await body.read(), answer.get("ContentRange", "")
            except S3_RETRYABLE_ERRORS:
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")


class _GcsObject:
    """An object of one generation."""

    def __init__(self, filesystem: Any, part: FilePart) -> None:
        self._filesystem = filesystem
        self._part = part
        self._url = filesystem.url(path_of(part.uri), generation=part.version)

    def read(self, start: int, end: int) -> bytes:
        if start == end:
            _check(self._filesystem, self._part)
            return b""
        # Not to be decompressed on the way, which would leave ranges without meaning.
        wanted = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "gzip"}
        try:
            with gcs_refusals():
                told, data = self._filesystem.call("GET", self._url, headers=wanted)
        except FileNotFoundError:
            _check(self._filesystem, self._part)
            raise
        except OSError:
            raise
        except Exception as error:
            if getattr(error, "code", None) in (412, 416):
                raise Changed(_CHANGED) from None
            raise
        _check_size(told.get("Content-Range", ""), self._part)
        return _whole(data, start, end)


class _WatchedFile:
    """A file of which nothing is known but what its file system tells."""

    def __init__(self, filesystem: FileSystem, part: FilePart) -> None:
        self._filesystem = filesystem
        self._part = part
        _check(filesystem, part)

    def read(self, start: int, end: int) -> bytes:
        data = self._filesystem.cat_file(path_of(self._part.uri), start=start, end=end)
        _check(self._filesystem, self._part)
        return _whole(data, start, end)


_CHANGED: Final = "the file has changed since the run was planned"


def _check(filesystem: FileSystem, part: FilePart) -> None:
    path = path_of(part.uri)
    filesystem.invalidate_cache(path)
    info = filesystem.info(path)
    if info["size"] != part.size or version_of(info) != part.version:
        raise Changed(_CHANGED)


def _check_size(content_range: str, part: FilePart) -> None:
    """Refuses an object of another size than the one that was listed, by `bytes 0-9/1234`."""
    size = content_range.rpartition("/")[2]
    if size.isdigit() and int(size) != part.size:
        raise Changed(f"the file was listed with {part.size:,} bytes and has {int(size):,}")


def _whole(data: bytes, start: int, end: int) -> bytes:
    if len(data) != end - start:
        raise Changed(f"{end - start:,} bytes expected at {start:,}, {len(data):,} came")
    return data
