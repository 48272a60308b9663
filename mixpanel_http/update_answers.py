"""Reads answers of `/engage` and `/groups`: their shape is not published, so it is parsed leniently.

What they say is reconciled strictly. They say 200 also where they refuse (PSET:
https://developer.mixpanel.com/reference/profile-set), so that a status proves nothing. Asked with
`strict=1&verbose=1`, they answer with JSON whose numbers and words have to agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from mixpanel_http.answers import Answer, json_object, message_of, read_answer
from mixpanel_http.failure_table import AnswerClass
from mixpanel_http.refused_records import SentIds, is_count, no_ids

_COUNTS: Final = ("num_good_events", "num_records_imported")
_SAYS_YES: Final = (1, "OK", "ok")
_PASSES: Final = "temporar"  # "a temporary failure occurred", with status 200


def read_update_answer(
    status: int, headers: Mapping[str, str], body: bytes, sent: int, now_s: float, ids: SentIds = no_ids
) -> Answer:
    """Returns what an answer to `sent` updates means; the arguments are those of `read_answer`."""
    content = json_object(body)
    listed = _as_of_events(content, sent) if content else None
    if status == 200 and listed is not None:
        refusal = read_answer(400, headers, listed, sent, now_s, ids)
        if refusal.kind is AnswerClass.PARTIAL:
            return replace(refusal, status=200, label="200")
    if status == 200:
        return _read_success(content, body, sent)
    return read_answer(status, headers, listed or body, sent, now_s, ids)


def _as_of_events(content: Mapping[str, Any], sent: int) -> bytes | None:
    """Returns an answer that lists refusals with its count under the name that `/import` has for it."""
    if not isinstance(content.get("failed_records"), list):
        return None
    counts = {content[name] for name in _COUNTS if is_count(content.get(name))}
    imported = counts.pop() if len(counts) == 1 else None
    return orjson.dumps({**content, "num_records_imported": imported})


def _read_success(content: Mapping[str, Any] | None, body: bytes, sent: int) -> Answer:
    """Returns what an answer with status 200 means that lists no refusals."""
    if content is None:
        return _read_digit(body.strip(), sent)
    words = message_of(content, body)
    if _says_all_is_well(content) and all(content[name] == sent for name in _COUNTS if name in content):
        return Answer(AnswerClass.OK, 200, "200")
    if _PASSES in words.lower():
        return _answer(AnswerClass.AMBIGUOUS, "status 200, but a failure that passes", words)
    if _is_no(content.get("status")) and content.get("error"):
        return _answer(AnswerClass.RECORD, "refused, without a list of records that can be relied on", words)
    return _answer(AnswerClass.PROTOCOL, f"{sent} updates sent, numbers and words do not agree", words)


def _answer(kind: AnswerClass, told: str, said: str) -> Answer:
    return Answer(kind, 200, "200", f"{told}: {said}" if said else told, told)


def _says_all_is_well(content: Mapping[str, Any]) -> bool:
    """Returns whether an answer names success, and nothing in it speaks against that."""
    if "error" not in content and not any(name in content for name in _COUNTS):
        return False  # neither "no error" nor a number: `{"status": 1}` alone may be about one of many
    status = content.get("status")
    if isinstance(status, bool) or status not in _SAYS_YES:
        return False
    if content.get("error") or content.get("failed_records") or content.get("code", 200) != 200:
        return False
    return all(is_count(content[name]) for name in _COUNTS if name in content)


def _is_no(status: object) -> bool:
    return status == 0 and not isinstance(status, bool)


def _read_digit(digit: bytes, sent: int) -> Answer:
    """Returns what a plain `1` or `0` means: `1` that one of them at least is good, `0` that none is."""
    if digit == b"1" and sent == 1:
        return Answer(AnswerClass.OK, 200, "200")
    if digit == b"0":
        return _answer(AnswerClass.RECORD, "refused with 0, without a reason", "")
    problem = "1, which does not say for how many" if digit == b"1" else message_of(None, digit)
    return _answer(AnswerClass.PROTOCOL, f"not the JSON that was asked for: {problem}", "")
