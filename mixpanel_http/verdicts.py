"""Why a record is refused before it is sent: the reasons by name, and the value that carries one."""

from __future__ import annotations

from enum import Enum

import msgspec


class Reason(str, Enum):
    """The rule of `/import` that a record breaks; the value is what dead letters and reports show."""

    INVALID_JSON = "invalid_json"
    INVALID_UTF8 = "invalid_utf8"
    NOT_OBJECT = "not_object"
    NON_FINITE_NUMBER = "non_finite_number"
    LONE_SURROGATE = "lone_surrogate"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    TOO_MANY_KEYS = "too_many_keys"
    ARRAY_TOO_LONG = "array_too_long"
    MISSING_EVENT = "missing_event"
    MISSING_PROPERTIES = "missing_properties"
    MISSING_TIME = "missing_time"
    BAD_TIME = "bad_time"
    FUTURE_TIME = "future_time"
    MISSING_DISTINCT_ID = "missing_distinct_id"
    BAD_DISTINCT_ID = "bad_distinct_id"
    DISALLOWED_ID = "disallowed_id"
    INSERT_ID_FIELDS_MISSING = "insert_id_fields_missing"
    IDENTITY_EVENT = "identity_event"
    BAD_IDENTITY_EVENT = "bad_identity_event"
    MISSING_OPERATION = "missing_operation"
    BAD_OPERATION = "bad_operation"
    MISSING_GROUP = "missing_group"
    CLUSTER_FULL = "cluster_full"
    UNKNOWN_KIND = "unknown_kind"
    TRUNCATED_TAIL = "truncated_tail"
    DUPLICATE_KEYS = "duplicate_keys"
    MAP_FAILED = "map_failed"
    BAD_ROW = "bad_row"
    BAD_KEY = "bad_key"
    TABLE_REFUSED = "table_refused"


class RecordRefused(ValueError):
    """A record that Mixpanel would refuse or lose, with the rule that says so."""

    def __init__(self, reason: Reason, field: str | None, message: str) -> None:
        self.reason = reason
        self.field = field
        self.message = message

    @classmethod
    def of_field(cls, reason: Reason, field: str, problem: str) -> RecordRefused:
        """Returns the refusal of a record for one of its fields, told as Mixpanel tells it."""
        return cls(reason, field, f"'{field}' is invalid: {problem}")

    def __str__(self) -> str:
        """Returns the reason and what it is about; nobody asks for millions of them."""
        return f"{self.reason.value}: {self.message}"

    def rejection(self, index: int, output: int | None = None) -> Rejection:
        """Returns the refusal as a value, for the record at `index` of its block."""
        return Rejection(index, self.reason.value, self.field, self.message, output=output)


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """One refused record of a block; made in a tenth of a dataclass's time, as bad input has millions.

    Attributes:
        index: which line of the block, from 0.
        reason: a `Reason` value, or `refused_by_service` and the like for what the service refuses.
        field: the property it is about, as Mixpanel names it, or None.
        message: what was expected and what came; never the record's own values beyond a field's type.
        http_status: the answer's status, or None for what was refused before sending.
        output: which of the records that a map made of the line, from 0; None if there is no map, or it
            failed on the line as a whole.
    """

    index: int
    reason: str
    field: str | None
    message: str
    http_status: int | None = None
    output: int | None = None
