"""What is told of a record that is refused for what can be said without its values.

Whoever finds a flaw, the judge of one record or a pass over a block's bytes, tells it in these words.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from mixpanel_http import limits
from mixpanel_http.verdicts import Reason, RecordRefused


class Flaw(NamedTuple):
    """A broken rule: its reason, the field it is about and what is said of it."""

    reason: Reason
    field: str | None
    message: str

    @classmethod
    def of_field(cls, reason: Reason, field: str, problem: str) -> Flaw:
        """Returns the flaw of one of a record's fields, told as `RecordRefused` tells it."""
        refused = RecordRefused.of_field(reason, field, problem)
        return cls(reason, field, refused.message)

    def refusal(self) -> RecordRefused:
        """Returns it as an error."""
        return RecordRefused(*self)


_TIME: Final = "properties.time"
_DISTINCT_ID: Final = "properties.distinct_id"

NO_PROPERTIES: Final = Flaw.of_field(Reason.MISSING_PROPERTIES, "properties", "must not be missing")
NO_EVENT: Final = Flaw(Reason.MISSING_EVENT, "event", "'event' must not be missing or blank")
NO_TIME: Final = Flaw.of_field(Reason.MISSING_TIME, _TIME, "must not be missing")
EARLY_TIME: Final = Flaw.of_field(Reason.BAD_TIME, _TIME, "must not be before 1971-01-01")
LATE_TIME: Final = Flaw.of_field(
    Reason.FUTURE_TIME, _TIME, "must not be more than an hour ahead, in seconds or milliseconds since epoch"
)
IDENTITY_EVENT: Final = Flaw(
    Reason.IDENTITY_EVENT,
    "event",
    "identity events are not allowed when project is using simplified identity management",
)
DISALLOWED_ID: Final = Flaw.of_field(Reason.DISALLOWED_ID, _DISTINCT_ID, "is a disallowed value")
NO_DISTINCT_ID: Final = Flaw.of_field(Reason.MISSING_DISTINCT_ID, _DISTINCT_ID, "must not be missing")
LONE_SURROGATE: Final = Flaw(
    Reason.LONE_SURROGATE, None, "a \\u escape stands for half a character (lone surrogate)"
)


def time_as(kind: str) -> Flaw:
    """Returns the flaw of a time that is no number, but something else, in words."""
    return Flaw.of_field(Reason.BAD_TIME, _TIME, f"must be specified as seconds since epoch, not as {kind}")


def non_finite(token: str) -> Flaw:
    """Returns the flaw of a line with a number that JSON does not have."""
    return Flaw(Reason.NON_FINITE_NUMBER, None, f"{token} is not JSON; send null or leave the property out")


def not_utf8(position: int, field: str | None) -> Flaw:
    """Returns the flaw of a line with bytes that are no UTF-8.

    >>> not_utf8(7, "properties.city").message
    'properties.city is invalid: string should be valid utf8 (byte 7)'

    Args:
        position: of the first such byte.
        field: the property that has it in its text, if one has.
    """
    name = field or "record"
    return Flaw(
        Reason.INVALID_UTF8, field, f"{name} is invalid: string should be valid utf8 (byte {position})"
    )


def field_name(key: str) -> str:
    """Returns a property's name as refusals show it: cut as Mixpanel cuts it, and fit to be written down."""
    return f"properties.{key[: limits.MAX_STRING]}".encode(errors="replace").decode()


@lru_cache(maxsize=256)
def field_of(key: bytes) -> str:
    """Returns the same of a key without escapes as it stands in a line, whatever its bytes stand for."""
    return field_name(key.decode(errors="surrogateescape"))
