"""What an answer of `/import` means: the one table from statuses to classes, and its reading.

After the failure taxonomy in docs/delivery.md. An answer counts as imported only where its numbers add up;
what lies outside the documented contract is never taken for success.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeGuard

import orjson

MAX_RETRY_AFTER_S: Final = 300.0
_MESSAGE_LENGTH: Final = 500


class AnswerClass(Enum):
    """What to do with an answer; the names are those of docs/delivery.md."""

    OK = "ok"  # imported, the counts agree
    PARTIAL = "partial"  # the listed records are refused, the others imported
    THROTTLED = "throttled"  # too fast: slow down, send the same again
    TRANSIENT = "transient"  # not committed, or certainly not sent: send the same again
    AMBIGUOUS = "ambiguous"  # perhaps committed: send the same again, the ids make it harmless
    TOO_LARGE = "too_large"  # halve it
    RECORD = "record"  # some record is at fault, the answer does not say which: isolate it
    PROTOCOL = "protocol"  # outside the contract: a few more tries, then undelivered
    FATAL = "fatal"  # not the data's fault: stop the run


# Statuses that mean the same whatever the body says. Others are decided below.
STATUS_CLASSES: Final[Mapping[int, AnswerClass]] = {
    401: AnswerClass.FATAL,
    402: AnswerClass.FATAL,
    403: AnswerClass.FATAL,
    404: AnswerClass.FATAL,
    405: AnswerClass.FATAL,
    406: AnswerClass.FATAL,
    408: AnswerClass.TRANSIENT,
    409: AnswerClass.TRANSIENT,
    410: AnswerClass.FATAL,
    411: AnswerClass.FATAL,
    413: AnswerClass.TOO_LARGE,
    414: AnswerClass.FATAL,
    415: AnswerClass.FATAL,
    421: AnswerClass.FATAL,
    422: AnswerClass.FATAL,
    423: AnswerClass.TRANSIENT,
    425: AnswerClass.TRANSIENT,
    429: AnswerClass.THROTTLED,
    431: AnswerClass.FATAL,
    451: AnswerClass.FATAL,
    500: AnswerClass.AMBIGUOUS,
    501: AnswerClass.FATAL,
    502: AnswerClass.AMBIGUOUS,
    503: AnswerClass.TRANSIENT,
    504: AnswerClass.AMBIGUOUS,
    505: AnswerClass.FATAL,
}
# Refusals that are about the plan or the project, not about who asks (exit 7 instead of 3).
REFUSED_FOR_GOOD: Final = frozenset({402, 451})


@dataclass(frozen=True, slots=True)
class RefusedRecord:
    """One record that the service refused: its 0-based index in the request, and what the service said of it."""

    index: int
    field: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, read.

    Attributes:
        kind: what it means.
        status: HTTP status, or 0 where no answer came.
        label: `200`, `429`, … or the transport error's class, for counting.
        message: what the service said, cut and without the record's own values.
        refused: for PARTIAL, the records that are not imported.
        retry_after_s: the wait that the service asked for, in seconds, or None.
        sent: False if the request certainly never left.
    """

    kind: AnswerClass
    status: int
    label: str
    message: str = ""
    refused: tuple[RefusedRecord, ...] = ()
    retry_after_s: float | None = None
    sent: bool = True


def read_answer(status: int, headers: Mapping[str, str], body: bytes, sent: int, now_s: float) -> Answer:
    """Returns what an answer to a request of `sent` events means.

    Args:
        status: HTTP status.
        headers: the answer's headers, names in any case.
        body: the answer's body, decoded of its transfer encodings.
        sent: how many events the request held.
        now_s: the clock, for a `Retry-After` that names a date.
    """
    content = _json_object(body)
    message = _message(content, body)
    if status == 200:
        return _read_success(content, message, sent)
    if status == 400:
        return _read_refusal(content, message, sent)
    return Answer(
        _class_of(status),
        status,
        str(status),
        message,
        retry_after_s=retry_after(headers.get("retry-after"), now_s),
    )


def retry_after(value: str | None, now_s: float) -> float | None:
    """Returns the seconds that a `Retry-After` header asks for, in either form, or None if it is not usable.

    >>> retry_after("7", 0.0), retry_after("Thu, 01 Jan 1970 00:00:09 GMT", 4.0), retry_after("soon", 0.0)
    (7.0, 5.0, None)
    """
    if value is None:
        return None
    text = value.strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        seconds = float(text)
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - now_s
        except (ValueError, TypeError, OverflowError):
            return None
    return min(seconds, MAX_RETRY_AFTER_S) if seconds > 0 else None


def _class_of(status: int) -> AnswerClass:
    if status in STATUS_CLASSES:
        return STATUS_CLASSES[status]
    if 200 <= status < 300:
        return AnswerClass.PROTOCOL
    return AnswerClass.AMBIGUOUS if status >= 500 else AnswerClass.FATAL


def _read_success(content: Mapping[str, Any] | None, message: str, sent: int) -> Answer:
    if content is None:
        return Answer(AnswerClass.PROTOCOL, 200, "200", f"not the documented JSON: {message}")
    imported = content.get("num_records_imported")
    if content.get("status") != "OK" or content.get("error") or content.get("failed_records"):
        return Answer(AnswerClass.PROTOCOL, 200, "200", f"status 200, but: {message}")
    if not _is_count(imported) or imported != sent:
        return Answer(
            AnswerClass.PROTOCOL, 200, "200", f"{sent} events sent, num_records_imported is {imported!r:.20}"
        )
    return Answer(AnswerClass.OK, 200, "200")


def _read_refusal(content: Mapping[str, Any] | None, message: str, sent: int) -> Answer:
    refused = _refused_records(content, sent)
    imported = content.get("num_records_imported") if content else None
    if refused and _is_count(imported) and imported == sent - len(refused):
        return Answer(AnswerClass.PARTIAL, 400, "400", message, refused)
    return Answer(AnswerClass.RECORD, 400, "400", message)


def _refused_records(content: Mapping[str, Any] | None, sent: int) -> tuple[RefusedRecord, ...]:
    """Returns the listed records, one each, or nothing where the list cannot be matched to what was sent."""
    listed = content.get("failed_records") if content else None
    if not isinstance(listed, list):
        return ()
    found: dict[int, RefusedRecord] = {}
    for entry in listed:
        index = entry.get("index") if isinstance(entry, dict) else None
        if not _is_count(index) or index >= sent:
            return ()
        field = entry.get("field")
        said = entry.get("message")
        found[index] = RefusedRecord(
            index,
            field if isinstance(field, str) else None,
            str(said if said is not None else "")[:_MESSAGE_LENGTH],
        )
    return tuple(found.values())


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _json_object(body: bytes) -> Mapping[str, Any] | None:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return content if isinstance(content, dict) else None


def _message(content: Mapping[str, Any] | None, body: bytes) -> str:
    """Returns the service's own words; of a body that is not JSON only its kind: it may hold anything."""
    if content is not None:
        error = content.get("error")
        return str(error if error is not None else content.get("status", ""))[:_MESSAGE_LENGTH]
    if not body.strip():
        return "empty body"
    return "an HTML page" if body.lstrip()[:1] == b"<" else f"{len(body)} bytes that are no JSON object"


__all__ = ["REFUSED_FOR_GOOD", "Answer", "AnswerClass", "RefusedRecord", "read_answer", "retry_after"]
