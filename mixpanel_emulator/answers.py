"""The answers of Mixpanel's ingestion side, in the shapes that are published or were observed."""

from collections.abc import Mapping, Sequence
from email.utils import formatdate
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from mixpanel_emulator.event_rules import Refusal
from mixpanel_emulator.settings import Settings

JSON = "application/json"
PLAIN = "text/plain; charset=utf-8"
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    413: "Request Entity Too Large",
    429: "Too Many Requests",
}
FAILED_VALIDATION = "some data points in the request failed validation"  # IMP, OAI-ING
# OAI-ING, E429
RATE_EXCEEDED = "Project exceeded rate limits. Please retry the request with exponential backoff."
INVALID_CREDENTIALS = "Invalid credentials"  # OAI-ING


class Answer(NamedTuple):
    """One HTTP answer, not yet on the wire."""

    status: int
    body: bytes
    media_type: str = JSON
    headers: Mapping[str, str] = MappingProxyType({})


def as_json(status: int, content: object) -> Answer:
    """Returns an answer with a JSON body."""
    return Answer(status, orjson.dumps(content))


def error(status: int, message: str) -> Answer:
    """Returns the `{"code", "error", "status"}` answer of a request that was refused as a whole."""
    return as_json(status, {"code": status, "error": message, "status": REASONS.get(status, "Error")})


def too_large(limit: int) -> Answer:
    """Returns the 413 of a body over the limit, told with the configured number (E413)."""
    return error(413, f"request exceeds max limit of {limit} bytes")


def too_many(limit: int, noun: str = "events") -> Answer:
    """Returns the 413 of a batch with too many records (E413 implies the status; the text is inferred)."""
    return error(413, f"request exceeds max limit of {limit} {noun}")


def rate_exceeded(settings: Settings, wait_s: float, *, strict: bool, now: float) -> Answer:
    """Returns the 429, with a string `status` under strict and a number without (I-N231)."""
    strictly = error(429, RATE_EXCEEDED)
    answer = strictly if strict else as_json(429, {"error": RATE_EXCEEDED, "status": 0})
    return answer._replace(headers=retry_after(settings.retry_after, wait_s, now))


def retry_after(form: str, wait_s: float, now: float) -> dict[str, str]:
    """Returns the Retry-After header in one of its two forms, or none.

    >>> retry_after("seconds", 1.2, 0), retry_after("date", 1.2, 0)
    ({'retry-after': '2'}, {'retry-after': 'Thu, 01 Jan 1970 00:00:02 GMT'})
    """
    seconds = int(wait_s) + 1
    if form == "none":
        return {}
    return {"retry-after": str(seconds) if form == "seconds" else formatdate(now + seconds, usegmt=True)}


def imported(count: int) -> Answer:
    """Returns the 200 of a strict import without failures."""
    return as_json(200, {"code": 200, "num_records_imported": count, "status": "OK"})


def partly_imported(
    settings: Settings, count: int, failures: Sequence[tuple[int, Refusal]], *, strings: bool
) -> Answer:
    """Returns the 400 of a strict import with failures; the records that it does not list are stored."""
    rows: list[Any] = [refusal.message for _, refusal in failures] if strings else [
        _failed_row(settings, index, refusal) for index, refusal in failures
    ]  # fmt: skip
    content = {
        "code": 400,
        "error": FAILED_VALIDATION,
        "status": "Bad Request",
        "num_records_imported": count,
        "failed_records": rows,
    }
    return as_json(400, content)


def _failed_row(settings: Settings, index: int, refusal: Refusal) -> dict[str, object]:
    row = {"index": index, settings.failed_id_key: refusal.insert_id}
    return {**row, "field": refusal.field, "message": refusal.message}


def leniently_imported(count: int, failed: int, *, verbose: bool) -> Answer:
    """Returns the answer of `strict=0`: always 200, and JSON only when asked for (GO, SHEETS)."""
    if not verbose:
        return plain(count > 0 or not failed)
    content: dict[str, object] = {"code": 200, "num_records_imported": count, "status": 0 if failed else 1}
    if failed:
        content["error"] = FAILED_VALIDATION
    return as_json(200, content)


def plain(good: bool) -> Answer:
    """Returns the plain `1` or `0`."""
    return Answer(200, b"1" if good else b"0", PLAIN)


def verbosely(problem: str | None) -> Answer:
    """Returns the `{"status", "error"}` answer of /track, /engage and /groups with `verbose`."""
    return as_json(200, {"status": 0 if problem else 1, "error": problem})
