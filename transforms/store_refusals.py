"""Says why a store refuses what was asked of it, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal

from transforms.storage import path_of, scheme_of, told

What = Literal["listed", "read", "written", "removed"]

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; 403 is what a HEAD is answered with.
_FORBIDDEN: Final = frozenset({"AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden", "403"})
_CREDENTIALS: Final = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "TokenRefreshRequired"}
)
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
# https://cloud.google.com/storage/docs/access-control/iam-permissions; overwriting takes the right to delete.
_NEEDED: Final[Mapping[str, Mapping[What, str]]] = {
    "s3": {
        "listed": "s3:ListBucket",
        "read": "s3:GetObject and s3:ListBucket",
        "written": "s3:PutObject",
        "removed": "s3:DeleteObject",
    },
    "gs": {
        "listed": "storage.objects.list",
        "read": "storage.objects.get",
        "written": "storage.objects.create and storage.objects.delete",
        "removed": "storage.objects.delete",
    },
}
_WHERE: Final = {
    "s3": "in storage_options (key and secret, or profile), or anon: true for a public bucket",
    "gs": "in storage_options (token), or token: anon for a public bucket",
}


def refusal(error: BaseException, uri: str, what: What) -> str:
    """Returns why a URI cannot be listed, read, written or removed.

    Where a single object is asked for, its absence is for the caller to tell: here what is not found is a
    bucket.

    >>> refusal(FileNotFoundError("acme"), "s3://acme/raw/*.json", "listed")
    'there is no bucket acme; check its name, and storage_options (endpoint_url)'
    """
    scheme = scheme_of(uri)
    if scheme == "file":
        return told(error)
    bucket = path_of(uri).partition("/")[0]
    if isinstance(error, FileNotFoundError):
        return f"there is no bucket {bucket}; check its name, and storage_options (endpoint_url)"
    codes = frozenset(_codes(error))
    if codes & _CREDENTIALS:
        return f"the store does not take these credentials ({told(error)}); name others {_WHERE[scheme]}"
    if type(error).__name__ == "NoCredentialsError":
        return f"there are no credentials; name some {_WHERE[scheme]}"
    if codes & _FORBIDDEN or "401" in codes:
        todo = f"grant {_NEEDED[scheme][what]} on bucket {bucket}, or name other credentials {_WHERE[scheme]}"
        return f"no permission ({told(error)}); {todo}"
    return told(error)


def _codes(error: BaseException | None) -> Iterator[str]:
    """Yields the codes that a store answered with, as far as its client passes them on."""
    while error is not None:
        response = getattr(error, "response", None)  # botocore's
        if isinstance(response, Mapping):
            yield str(response.get("Error", {}).get("Code"))
        if getattr(error, "code", None) is not None:  # gcsfs'
            yield str(getattr(error, "code", None))
        yield str(error).partition(":")[0]  # gcsfs raises a 403 as an OSError that begins with a word
        error = error.__cause__
