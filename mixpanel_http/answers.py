"""Reads answers of `/import`: which class of the failure table one is, and what is told of it.

An answer counts as imported only where its numbers add up; what lies outside the documented contract is never
taken for success.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from mixpanel_http.contract_words import contract_words
from mixpanel_http.failure_table import (
    ACTIONS,
    PAGE_MAY_BE_A_FIREWALL,
    Action,
    AnswerClass,
    broken_row,
    status_row,
)
from mixpanel_http.limits import MAX_RECORD_BYTES
from mixpanel_http.refused_records import (
    MESSAGE_LENGTH,
    RefusedRecord,
    SentIds,
    is_count,
    no_ids,
    refused_records,
)

# One record below a tenth of what Mixpanel takes (limits.MAX_RECORD_BYTES) fits, whatever it is cut from.
ALWAYS_FITS_BYTES: Final = MAX_RECORD_BYTES // 10
MAX_RETRY_AFTER_S: Final = 300.0
PLAUSIBLE_RETRY_AFTER_S: Final = 86_400.0  # beyond a day it is a mistake or malice, and is not obeyed
_LARGEST: Final = re.compile(r"max limit of ([0-9]{4,12}) bytes")  # E413's sample


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, read.

    Attributes:
        kind: what it means.
        status: HTTP status, or 0 where no answer came.
        label: `200`, `429`, …, or what broke, for counting.
        message: what the service said, cut; for these records' letters alone: it may repeat values.
        told: what is said of it anywhere else: what it means, in words that are ours or its contract's.
        refused: for PARTIAL, the records that are not imported.
        retry_after_s: the wait that the service asked for, in seconds, or None.
        sent: False if the request certainly never left as a whole.
        tries: how often the same bytes are sent with this answer, at most, or None.
        largest_bytes: for TOO_LARGE, the limit that the service named, or None.
        row_action: what to do, where it is not what is done about the class in general.
    """

    kind: AnswerClass
    status: int
    label: str
    message: str = ""
    told: str = ""
    refused: tuple[RefusedRecord, ...] = ()
    retry_after_s: float | None = None
    sent: bool = True
    tries: int | None = None
    largest_bytes: int | None = None
    row_action: Action | None = None

    @property
    def action(self) -> Action:
        """What is to be done about it."""
        return self.row_action or ACTIONS[self.kind]


def read_answer(
    status: int, headers: Mapping[str, str], body: bytes, sent: int, now_s: float, ids: SentIds = no_ids
) -> Answer:
    """Returns what an answer to a request of `sent` events means.

    Args:
        status: HTTP status.
        headers: the answer's headers, names in lower case.
        body: the answer's body, decoded of its transfer encodings.
        sent: how many events the request held.
        now_s: the clock, for a `Retry-After` that names a date.
        ids: returns the ids that were sent.
    """
    content = json_object(body)
    message = message_of(content, body)
    said = contract_words(message) if content is not None else message
    if status == 200:
        problem = _problem_of_success(content, sent)
        kind = AnswerClass.PROTOCOL if problem else AnswerClass.OK
        return Answer(kind, 200, "200", _joined(problem, message), _joined(problem, said))
    if status == 400 and (refused := refused_records(content, sent, ids)):
        told = _joined(f"{len(refused)} records refused", said)
        return Answer(AnswerClass.PARTIAL, 400, "400", message, told, refused)
    row = status_row(status)
    firewall = status in PAGE_MAY_BE_A_FIREWALL and content is None
    limit = _LARGEST.search(message) if row.kind is AnswerClass.TOO_LARGE else None
    return Answer(
        row.kind,
        status,
        str(status),
        message,
        _joined(row.why, said),
        retry_after_s=retry_after(headers.get("retry-after"), now_s),
        tries=row.tries,
        largest_bytes=int(limit[1]) if limit else None,
        row_action=Action.PROBE if firewall else row.action,
    )


def once_only(answer: Answer, count: int) -> Answer:
    """Returns what an answer means for `count` records that must not be sent a second time.

    What may have got through, as a whole or in part, is left as it is. What certainly has not may be sent.
    """
    kind = answer.kind
    certain = (
        not answer.sent
        or kind in (AnswerClass.OK, AnswerClass.PARTIAL, AnswerClass.THROTTLED, AnswerClass.FATAL)
        or (kind is AnswerClass.RECORD and count == 1)
        or (kind is AnswerClass.TOO_LARGE and answer.status > 0)
        or (kind is AnswerClass.TRANSIENT and answer.tries is not None)
    )
    return answer if certain else replace(answer, row_action=Action.LEAVE)


def of_one_record(answer: Answer, size: int) -> Answer:
    """Returns what an answer to one record alone of `size` bytes means.

    A 413 to a small one blames the wrong side: Mixpanel takes it, and who answers so takes nothing.
    """
    if answer.kind is not AnswerClass.TOO_LARGE or not answer.status or size >= ALWAYS_FITS_BYTES:
        return answer
    told = (
        f"one record of {size:,} bytes is too large for it, where Mixpanel takes {MAX_RECORD_BYTES:,}: "
        "this is not Mixpanel's endpoint, or a proxy in front of it has a limit of its own"
    )
    return replace(answer, kind=AnswerClass.FATAL, told=told)


def broken_answer(error: BaseException, whole: bool = True) -> Answer:
    """Returns what it means that a request failed. The error's text stays out: it can hold the URL.

    Args:
        error: what was raised.
        whole: whether all of the request's bytes had been given to the network.
    """
    row = broken_row(error)
    sent = row.sent and whole
    # What the service has only a part of it cannot have imported.
    kind = AnswerClass.TRANSIENT if row.kind is AnswerClass.AMBIGUOUS and not whole else row.kind
    return Answer(kind, 0, row.label, row.why, row.why, sent=sent)


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
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
    return min(seconds, MAX_RETRY_AFTER_S) if 0 < seconds <= PLAUSIBLE_RETRY_AFTER_S else None


def _problem_of_success(content: Mapping[str, Any] | None, sent: int) -> str:
    """Returns why an answer with status 200 is not the documented success, or nothing; in our words alone."""
    if content is None:
        return "not the documented JSON"
    if content.get("status") != "OK" or content.get("code", 200) != 200:
        return "status 200, but it does not say OK"
    if content.get("error") or content.get("failed_records"):
        return "status 200, but it names errors"
    imported = content.get("num_records_imported")
    if imported == sent and is_count(imported):
        return ""
    told = imported if is_count(imported) and imported < sent else "something else"
    return f"{sent} events sent, num_records_imported is {told}"


def _joined(problem: str, said: str) -> str:
    return f"{problem}: {said}" if problem and said else problem


def json_object(body: bytes) -> Mapping[str, Any] | None:
    """Returns an answer's JSON object, or None if it is none."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return content if isinstance(content, dict) else None


def message_of(content: Mapping[str, Any] | None, body: bytes) -> str:
    """Returns the service's own words; of a body that is not JSON only its kind: it may hold anything."""
    if content is not None:
        error = content.get("error")
        return str(error if error is not None else content.get("status", ""))[:MESSAGE_LENGTH]
    if not body.strip():
        return "empty body"
    return "an HTML page" if body.lstrip()[:1] == b"<" else f"{len(body)} bytes that are no JSON object"
