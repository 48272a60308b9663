"""Opens local, S3 and GCS storage through fsspec, with the settings this project needs for each."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from mixpanel_http.secret_refs import resolve_all
from transforms.storage_options import check_options

SCHEMES: Final = ("file", "s3", "gs")
# Numbers of tries and timeouts of the stores' own clients; a store in trouble is theirs to ride out.
_CONNECT_SECONDS: Final = 10
_READ_SECONDS: Final = 60  # without a byte
_S3_CONFIG: Final = {
    "connect_timeout": _CONNECT_SECONDS,
    "read_timeout": _READ_SECONDS,
    "retries": {"max_attempts": 8, "mode": "standard"},
}
_WHO_PAYS: Final = (
    "who asks pays for this bucket; say which project does: storage_options: {requester_pays: PROJECT}"
)


class FileSystem(Protocol):
    """The part of fsspec's file systems that is used here; paths are without a scheme."""

    def info(self, path: str) -> dict[str, Any]: ...
    def find(self, path: str, maxdepth: int | None = None, detail: bool = False, **kwargs: Any) -> Any: ...
    def open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any: ...
    def cat_file(
        self, path: str, *, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes: ...
    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite") -> None: ...
    def put_file(self, lpath: str, rpath: str) -> None: ...
    def rm_file(self, path: str) -> None: ...
    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any: ...
    def exists(self, path: str) -> bool: ...
    def invalidate_cache(self, path: str | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Storage:
    """How a kind of storage is reached; references to secrets in it are resolved when it is opened.

    Attributes:
        options: handed to fsspec as they are (endpoint_url, anon, project, …).
    """

    options: Mapping[str, Any] = field(default_factory=dict)

    def open(self, uri: str) -> FileSystem:
        """Returns the file system that a URI lies on.

        Raises:
            SecretUnavailable: if a reference among the options leads nowhere.
            StorageOptionsWrong: if an option cannot be meant.
            ValueError: if the scheme is none of s3, gs, file.
        """
        import fsspec

        scheme = scheme_of(uri)
        options = resolve_all(self.options) if scheme != "file" else {}
        if scheme == "gs":
            # gcsfs otherwise asks a gRPC service about each bucket first, which costs a minute where there is
            # none. It looks at this when it is imported, which a look at its options does, too.
            os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        if options:
            check_options(scheme, options)
        if scheme == "gs":
            options = {"requests_timeout": _gcs_timeout(), **options}
        if scheme == "s3":
            options = {**options, "config_kwargs": {**_S3_CONFIG, **options.get("config_kwargs", {})}}
        filesystem: FileSystem = fsspec.filesystem(scheme, **options)
        return filesystem

    def open_to_read(self, uri: str) -> FileSystem:
        """Returns the file system of a URI for reading its files' bytes as they are stored.

        What GCS keeps with `Content-Encoding: gzip` its client would otherwise decompress, in parts of which
        only the first begins as gzip does.
        """
        if scheme_of(uri) != "gs":
            return self.open(uri)
        session = {**self.options.get("session_kwargs", {}), "auto_decompress": False}
        return Storage({**self.options, "session_kwargs": session}).open(uri)


def _gcs_timeout() -> Any:
    """Returns when a silent connection to GCS is given up; by itself gcsfs waits for ever."""
    from aiohttp import ClientTimeout

    return ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)


@contextmanager
def gcs_refusals() -> Iterator[None]:
    """Makes errors of storage of what gcsfs raises as ValueError: some refusals, told by their words."""
    try:
        yield
    except ValueError as error:
        raise OSError(_WHO_PAYS if "requester pays" in str(error) else str(error)) from None


def told(error: BaseException) -> str:
    r"""Returns what an error of a store says, on one line.

    >>> told(OSError("Forbidden: b/x\nAccess Denied"))
    'OSError: Forbidden: b/x Access Denied'
    """
    words = str(getattr(error, "strerror", None) or error).split()
    return " ".join([f"{type(error).__name__}:", *words])[:300]


def storage_errors() -> tuple[type[BaseException], ...]:
    """Returns what storage clients raise when a store refuses, breaks or cannot be reached.

    Most of it fsspec turns into OSError, but not all; the other classes are looked up among what is imported,
    so that a local run imports no cloud library.
    """
    names = (
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
        ("aiohttp", "ClientError"),
        ("google.auth.exceptions", "GoogleAuthError"),
        ("gcsfs.retry", "HttpError"),
        ("asyncio", "TimeoutError"),
        ("fsspec.exceptions", "FSTimeoutError"),
    )
    known = [getattr(sys.modules.get(module), name, None) for module, name in names]
    return (OSError, *(error for error in known if error is not None))


def list_objects(
    filesystem: Any, scheme: str, bucket: str, prefix: str, page_of: int = 1000
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (path, info) of a bucket's objects, page by page: fsspec's own `find` holds all of them.

    Raises:
        FileNotFoundError: if there is no such bucket.
        OSError: what else fsspec raises where a store refuses.
    """
    token = ""
    while True:
        if scheme == "s3":
            more: dict[str, Any] = {"ContinuationToken": token} if token else {}
            more["MaxKeys"] = page_of
            page = filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
            found = [(item["Key"], {**item, "size": item["Size"]}) for item in page.get("Contents", ())]
            token = page.get("NextContinuationToken", "") if page.get("IsTruncated") else ""
        else:
            more = {"maxResults": page_of, **({"pageToken": token} if token else {})}
            with gcs_refusals():
                page = filesystem.call("GET", "b/{}/o", bucket, prefix=prefix, json_out=True, **more)
            found = [(item["name"], item) for item in page.get("items", ())]
            token = page.get("nextPageToken", "")
        yield from ((f"{bucket}/{key}", info) for key, info in found if not key.endswith("/"))
        if not token:
            return


def scheme_of(uri: str) -> str:
    """Returns `s3`, `gs` or `file`.

    >>> scheme_of("s3://bucket/key"), scheme_of("data/x.json")
    ('s3', 'file')

    Raises:
        ValueError: for any other scheme.
    """
    if "://" not in uri:
        return "file"
    scheme = urlsplit(uri).scheme
    if scheme not in SCHEMES:
        raise ValueError(f"{scheme}:// is not supported; use s3://, gs://, file:// or a path")
    return scheme


def path_of(uri: str) -> str:
    """Returns a URI's path as its file system takes it: bucket and key, or an absolute local path.

    >>> path_of("s3://bucket/a/b.json")
    'bucket/a/b.json'
    """
    if scheme_of(uri) != "file":
        return uri.split("://", 1)[1]
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


def uri_of(scheme: str, path: str) -> str:
    """Returns the URI of a path; local files stand for themselves.

    >>> uri_of("gs", "bucket/key"), uri_of("file", "/data/x")
    ('gs://bucket/key', '/data/x')
    """
    return path if scheme == "file" else f"{scheme}://{path}"


def version_of(info: Mapping[str, Any]) -> str:
    """Returns what changes when a file is replaced: its etag, generation or modification time.

    GCS has an etag too, but takes only the generation in a request for that version.
    """
    for key in ("ETag", "generation", "etag", "mtime", "LastModified", "updated"):
        value = info.get(key)
        if value is not None:
            return str(value).strip('"')
    return ""
