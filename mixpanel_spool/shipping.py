"""Takes finished files from this machine to the folder where a backfill looks for them, on S3 or GCS."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mixpanel_spool.spool_file import finished_files

# The store's own patience is for servers that run on; an application that ends must not wait for minutes.
_S3_OPTIONS: Final[Mapping[str, Any]] = {
    "config_kwargs": {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 2}}
}


class Shipper:
    """Uploads finished files, and then removes them here. One upload at a time."""

    def __init__(self, uri: str, staging: Path, storage_options: Mapping[str, Any]) -> None:
        """Takes where to and where from; opens nothing yet."""
        self._uri = uri.rstrip("/")
        self._staging = staging
        self._options = dict(storage_options)
        self._lock = threading.Lock()
        self._filesystem: Any = None

    def ship(self) -> int:
        """Uploads every finished file, and returns how many. Sent again after a crash, it is the same object.

        Raises:
            Exception: whatever the storage's library raises; what is not uploaded stays here.
        """
        shipped = 0
        with self._lock:
            for path in finished_files(self._staging):
                with contextlib.suppress(FileNotFoundError):  # another process has just shipped it
                    self._put(path)
                    path.unlink()
                    shipped += 1
        return shipped

    def _put(self, path: Path) -> None:
        if self._filesystem is None:
            from fsspec.core import url_to_fs  # here, so that a spool on disk needs no fsspec

            defaults = _S3_OPTIONS if self._uri.startswith("s3://") else {}
            self._filesystem, _ = url_to_fs(self._uri, **{**defaults, **self._options})
        target = f"{self._uri}/{path.relative_to(self._staging).as_posix()}"
        self._filesystem.put_file(os.fspath(path), self._filesystem._strip_protocol(target))


def default_staging(uri: str) -> Path:
    """Returns this user's folder below the system's temporary folder, one for each destination.

    Raises:
        PermissionError: if somebody else has made it, or others may read it.
    """
    name = hashlib.sha256(uri.encode()).hexdigest()[:16]
    private = Path(tempfile.gettempdir(), f"mixpanel-spool-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        private.mkdir(mode=0o700)
    found = private.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(
            f"{private}: must be this user's alone; give the spool another folder as staging"
        )
    return private / name
