"""Checks `storage_options` before a store's client does: it takes some mistakes for other settings."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

# What fsspec takes for any file system, beside its parameters.
_FSSPEC: Final = frozenset({"use_listings_cache", "listings_expiry_time", "max_paths", "skip_instance_cache"})


class StorageOptionsWrong(ValueError):
    """The options cannot be meant; the message says which, and why."""


def check_options(scheme: str, options: Mapping[str, Any]) -> None:
    """Looks at options for S3 or GCS.

    Raises:
        StorageOptionsWrong: naming all that is wrong.
    """
    problems = [*_unknown(scheme, options), *_endpoint(options.get("endpoint_url"))]
    if scheme == "gs":
        problems += _token(options.get("token"))
    if problems:
        raise StorageOptionsWrong("\n".join(f"storage_options.{problem}" for problem in problems))


def _unknown(scheme: str, options: Mapping[str, Any]) -> Iterator[str]:
    known = _known(scheme)
    unknown = options.keys() - known
    if unknown and scheme == "gs":  # whose client takes any name, so that S3's may stand beside GCS's
        unknown -= _known("s3")
    for name in sorted(unknown):
        near = difflib.get_close_matches(name, known, n=1)
        yield f"{name}: unknown for {scheme}://" + (f"; did you mean {near[0]}?" if near else "")


def _known(scheme: str) -> frozenset[str]:
    """Returns the names that a store's client takes."""
    import fsspec

    classes: list[type] = list(fsspec.get_filesystem_class(scheme).__mro__)
    if scheme == "s3":  # which hands what it does not know to the session
        from aiobotocore.session import AioSession

        classes += AioSession.__mro__
    names = {
        parameter.name
        for one in classes
        if "__init__" in vars(one) and one is not object
        for parameter in inspect.signature(vars(one)["__init__"]).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return _FSSPEC | names - {"self"}


def _endpoint(url: object) -> Iterator[str]:
    if url is None:
        return
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        yield "endpoint_url: must be like https://minio.example:9000"


def _token(token: object) -> Iterator[str]:
    """Refuses a name of a file that is not there: gcsfs would send it to Google as a token."""
    if not isinstance(token, str) or token.startswith(_GOOGLES):
        return
    if ("/" in token or token.endswith(".json")) and not os.path.exists(token):
        yield "token: there is no such file"


_GOOGLES: Final = ("ya29.", "1/")  # what tokens of Google's begin with
