"""The state folder of a run: small files, written whole or appended to, on local disk, S3 or GCS."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, BinaryIO, Final

from mixpanel_http.crash_points import crash_amid, crash_point
from pipelines import local_files
from transforms.storage import FileSystem, Storage, list_objects, path_of, scheme_of, storage_errors
from transforms.store_refusals import What, refusal
from transforms.unrecorded import CannotRecord

_READERS: Final = 16
_READ_AHEAD: Final = 128
# s3fs asks for the size of a file first, and lists what is below a name where there is no file.
_AT_ONCE: Final[Mapping[str, Mapping[str, int]]] = {"s3": {"max_concurrency": 1}}
_lock: Final = threading.Lock()


class StateUnusable(CannotRecord):
    """The state folder cannot be read or written; the message names the file."""


@dataclass(frozen=True, slots=True)
class StateFolder:
    """A folder that holds a run's state. Cheap to copy and to pickle; opened where it is used.

    Attributes:
        uri: the folder.
        storage: how it is reached.
    """

    uri: str
    storage: Storage = field(default_factory=Storage)

    @property
    def is_local(self) -> bool:
        """True on this machine's disk, where files can be appended to."""
        return scheme_of(self.uri) == "file"

    def below(self, name: str) -> StateFolder:
        """Returns a folder inside this one."""
        return StateFolder(f"{self.uri.rstrip('/')}/{name}", self.storage)

    def path(self, name: str) -> str:
        """Returns the path of a file as its file system takes it."""
        return f"{path_of(self.uri)}/{name}"

    def uri_of(self, name: str) -> str:
        """Returns a file's URI, as a person would name it."""
        return f"{self.uri.rstrip('/')}/{name}"

    def write(self, name: str, content: bytes) -> None:
        """Writes a file as a whole: readers see all of it or nothing.

        Raises:
            StateUnusable: if it cannot be written.
        """
        with self.explained(name, "written"):
            if not self.is_local:
                self._filesystem().pipe_file(self.path(name), content)
                return
            local_files.write(self.path(name), content)

    def write_if(self, name: str, content: bytes, wanted: Callable[[], bool]) -> bool:
        """Writes a file as a whole if it is wanted; returns whether it was.

        On a disk that is asked once more when all is written but the name: to write may take long.

        Raises:
            StateUnusable: if it cannot be written.
        """
        if not wanted():
            return False
        if self.is_local:
            with self.explained(name, "written"):
                return local_files.write(self.path(name), content, wanted)
        self.write(name, content)
        return True

    def write_pieces(self, name: str, pieces: Iterable[bytes]) -> None:
        """Writes a large file as a whole, which is never in memory as a whole.

        Raises:
            StateUnusable: if it cannot be written.
        """
        with self.explained(name, "written"), tempfile.TemporaryDirectory(dir=self._beside(name)) as folder:
            spooled = f"{folder}/content"
            local_files.spool(spooled, pieces)
            if not self.is_local:
                self._filesystem().put_file(spooled, self.path(name))
                return
            crash_point("between spool and rename")
            local_files.put_in_place(spooled, self.path(name))

    def _beside(self, name: str) -> str | None:
        """Returns where a file can be spooled so that it only has to be renamed; None is anywhere."""
        if not self.is_local:
            return None
        folder = os.path.dirname(self.path(name))
        os.makedirs(folder, exist_ok=True)
        return folder

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Opens a file to read it piece by piece.

        Raises:
            FileNotFoundError: if there is no such file.
            StateUnusable: if it cannot be read.
        """
        with self.explained(name, "read"):
            path = self.path(name)
            if self.is_local:
                opened: BinaryIO = open(path, "rb")  # noqa: SIM115 - closed below
            else:
                filesystem = self._filesystem()
                filesystem.invalidate_cache()
                opened = filesystem.open(path, "rb")
            with opened as file:
                yield file

    def create(self, name: str, content: bytes) -> bool:
        """Writes a file unless there is one, and returns whether it did.

        Of two at once exactly one succeeds, except on an object store that knows no conditional write.

        Raises:
            StateUnusable: if it cannot be written.
        """
        with self.explained(name, "written"):
            if not self.is_local:
                return self._create_object(name, content)
            return local_files.create(self.path(name), content)

    def _create_object(self, name: str, content: bytes) -> bool:
        """Creates an object; stores, and their clients, tell in many ways that there is one already."""
        try:
            self._filesystem().pipe_file(self.path(name), content, mode="create")
        except storage_errors():
            if not self.exists(name):
                raise
            return False
        return True

    def remove(self, name: str) -> None:
        """Removes a file, if there is one.

        Raises:
            StateUnusable: if it cannot be removed.
        """
        with self.explained(name, "removed"), contextlib.suppress(FileNotFoundError):
            if self.is_local:
                os.unlink(self.path(name))
            else:
                self._filesystem().rm_file(self.path(name))

    def remove_all(self, names: Collection[str]) -> None:
        """Removes several files side by side, those that are there.

        Raises:
            StateUnusable: if one cannot be removed.
        """
        with ThreadPoolExecutor(1 if self.is_local else _READERS) as pool:
            list(pool.map(self.remove, names))

    def open_log(self, name: str) -> LocalLog:
        """Opens a local file to append to.

        Raises:
            StateUnusable: if it cannot be written.
        """
        with self.explained(name, "written"):
            return LocalLog(self, name, local_files.open_to_append(self.path(name)))

    def append(self, name: str, content: bytes) -> None:
        """Appends to a local file, or begins it, and makes that survive a power failure.

        Half the work of `write`. But a crash may leave a part of it, and a power failure nothing, where the
        file system does not keep a new file's name with it. Readers must be able to tell.

        Raises:
            StateUnusable: if it cannot be written.
        """
        log = self.open_log(name)
        try:
            log.append(content)
            crash_point("between append and sync")
            log.sync()
        finally:
            log.close()

    def keep_names(self, folder: str) -> None:
        """Makes the names of a local folder's files survive a power failure.

        Raises:
            StateUnusable: if that fails.
        """
        with self.explained(folder, "written"):
            local_files.sync_names(self.path(folder))

    def read(self, name: str, start: int = 0) -> bytes:
        """Returns a file's content, or what of it stands from `start` on.

        Raises:
            FileNotFoundError: if there is no such file.
            StateUnusable: if it cannot be read.
        """
        with self.explained(name, "read"):
            if self.is_local:
                with open(self.path(name), "rb") as file:
                    file.seek(start)
                    return file.read()
            at_once = _AT_ONCE.get(scheme_of(self.uri), {})
            return self._filesystem().cat_file(self.path(name), **at_once)[start:]

    def read_all(self, names: list[str]) -> Iterator[tuple[str, bytes]]:
        """Yields (name, content) of several files, read side by side, but never far ahead."""
        with ThreadPoolExecutor(1 if self.is_local else _READERS) as pool:
            for start in range(0, len(names), _READ_AHEAD):
                some = names[start : start + _READ_AHEAD]
                yield from zip(some, pool.map(self.read, some), strict=True)

    def read_if_there(self, names: list[str]) -> Iterator[tuple[str, bytes]]:
        """Yields (name, content) of those of several files that are there, a few at a time."""
        with ThreadPoolExecutor(1 if self.is_local else _READERS) as pool:
            for start in range(0, len(names), _READERS):
                some = names[start : start + _READERS]
                for name, content in zip(some, pool.map(self._read_if_there, some), strict=True):
                    if content is not None:
                        yield name, content

    def _read_if_there(self, name: str) -> bytes | None:
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    def names(self, folder: str, prefix: str = "") -> dict[str, int]:
        """Returns name → size of the files directly in a folder; empty if there is none.

        Args:
            folder: the folder.
            prefix: only names that begin with it; an object store then lists no others.

        Raises:
            StateUnusable: if it cannot be listed.
        """
        with self.explained(folder, "listed"):
            if self.is_local:
                here = local_files.sizes(self.path(folder), prefix)
                return {f"{folder}/{name}": size for name, size in here.items()}
            filesystem = self._filesystem()
            filesystem.invalidate_cache()
            try:
                found = self._listed(filesystem, folder, prefix)
            except FileNotFoundError:
                return {}
            return {
                f"{folder}/{e['name'].rpartition('/')[2]}": e["size"] for e in found if e["type"] == "file"
            }

    def _listed(self, filesystem: FileSystem, folder: str, prefix: str) -> list[dict[str, Any]]:
        if not prefix:
            listed: list[dict[str, Any]] = filesystem.ls(self.path(folder), detail=True)
            return listed
        below: dict[str, dict[str, Any]] = filesystem.find(
            self.path(folder), maxdepth=None, detail=True, prefix=prefix
        )
        return list(below.values())

    def folders(self) -> list[str]:
        """Returns the names of the folders directly in this one; none if it is not there.

        Raises:
            StateUnusable: if it cannot be listed.
        """
        with self.explained("", "listed"):
            try:
                if self.is_local:
                    with os.scandir(path_of(self.uri)) as entries:
                        return [entry.name for entry in entries if entry.is_dir()]
                filesystem = self._filesystem()
                filesystem.invalidate_cache()
                found: list[dict[str, Any]] = filesystem.ls(path_of(self.uri), detail=True)
            except FileNotFoundError:
                self.check_bucket()
                return []
            return [e["name"].rstrip("/").rpartition("/")[2] for e in found if e["type"] == "directory"]

    def check_bucket(self) -> None:
        """Refuses a folder whose bucket is not there: its files then seem to be missing one by one.

        Raises:
            StateUnusable: if it is not, or the folder cannot be listed.
        """
        if self.is_local:
            return
        bucket, _, key = path_of(self.uri).partition("/")
        with self.explained("", "listed"):
            next(list_objects(self._filesystem(), scheme_of(self.uri), bucket, key, page_of=1), None)

    def exists(self, name: str) -> bool:
        """Returns whether there is such a file."""
        with self.explained(name, "read"):
            if self.is_local:
                return os.path.exists(self.path(name))
            filesystem = self._filesystem()
            filesystem.invalidate_cache()
            return filesystem.exists(self.path(name))

    def has_small(self, name: str) -> bool:
        """Returns whether there is such a file, of a few bytes: reading it is one request and not several."""
        try:
            self.read(name)
        except FileNotFoundError:
            return False
        return True

    def _filesystem(self) -> FileSystem:
        with _lock:
            return _open(scheme_of(self.uri), self.uri, _Hashable(self.storage))

    @contextlib.contextmanager
    def explained(self, name: str, what: What) -> Iterator[None]:
        """Turns what a disk or a store raises while a file is read, written, … into a `StateUnusable`."""
        try:
            yield
        except storage_errors() as error:
            if what == "read" and isinstance(error, FileNotFoundError):
                raise
            raise self.unusable(name, what, error) from error

    def unusable(self, name: str, what: What, error: BaseException) -> StateUnusable:
        """Returns what tells that a file cannot be read, written or the like, and why."""
        uri = self.uri_of(name) if name else self.uri
        return StateUnusable(f"{uri}: cannot be {what}: {refusal(error, self.uri, what)}")


@dataclass(slots=True)
class LocalLog:
    """A local file that is appended to.

    It stays open, so that what is appended goes into this very file, also when another was put in its place.

    Attributes:
        folder: where it is.
        name: the file.
    """

    folder: StateFolder
    name: str
    _file: int | None

    def __del__(self) -> None:
        self.close()

    def append(self, content: bytes) -> None:
        """Appends; what was appended survives a kill of this process.

        Raises:
            StateUnusable: if it cannot be written.
        """
        file = self._file
        assert file is not None, "closed"
        crash_amid("amid append", file, content)
        try:
            written = os.write(file, content)
        except OSError as error:
            raise self.folder.unusable(self.name, "written", error) from error
        if written != len(content):
            partly = OSError(f"only {written} of {len(content)} bytes written")
            raise self.folder.unusable(self.name, "written", partly)

    def sync(self) -> None:
        """Makes what was appended survive a power failure.

        Raises:
            StateUnusable: if it cannot.
        """
        assert self._file is not None, "closed"
        with self.folder.explained(self.name, "written"):
            os.fsync(self._file)

    def close(self) -> None:
        """Lets go of the file; nothing is appended any more."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class _Hashable:
    """A storage as a key: equal where its options are."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._key = repr(sorted(storage.options.items(), key=lambda item: item[0]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashable) and other._key == self._key

    def __hash__(self) -> int:
        return hash(self._key)


@lru_cache(maxsize=8)
def _open(scheme: str, uri: str, storage: _Hashable) -> FileSystem:
    return storage.storage.open(uri)
