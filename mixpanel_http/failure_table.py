"""The failure table of `/import`: what each status and each broken connection means, and what is done then.

Data only. `answers` reads answers by it, `delivery` acts on it, and docs/delivery.md shows it; a test holds
the three together.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from enum import Enum
from typing import Final

from urllib3 import exceptions as transport

from mixpanel_http.connections import GivenUp, NotConnected


class AnswerClass(Enum):
    """What an answer means; the names are those of docs/delivery.md."""

    OK = "ok"  # imported, the counts agree
    PARTIAL = "partial"  # the listed records are refused, the others imported
    THROTTLED = "throttled"  # faster than the project's limit
    TRANSIENT = "transient"  # trouble that passes; nothing is imported
    AMBIGUOUS = "ambiguous"  # trouble that passes; perhaps all is imported
    TOO_LARGE = "too_large"  # more bytes than the service takes at once
    RECORD = "record"  # some record is at fault, the answer does not say which
    PROTOCOL = "protocol"  # outside the contract, never taken for success
    FATAL = "fatal"  # not the data's fault, and waiting does not help


class Action(Enum):
    """What is done about an answer; the value is the sentence that docs/delivery.md prints."""

    ACCEPT = "count the records as imported"
    ACCEPT_REST = "dead-letter the listed records, count the others as imported"
    SLOW_DOWN = "slow the lane down; send the same bytes again until the deadline, then undelivered"
    RETRY = "send the same bytes again until the deadline, then undelivered; three in a row pause the lane"
    HALVE = (
        "halve the request and remember the size; one record alone is dead-lettered as `too_large`, or stops "
        "the run if it has less than 100 KB"
    )
    ISOLATE = "halve until the records at fault stand alone, 64 requests at most; the rest is `unisolated`"
    RETRY_FEW = "send the same bytes again, three tries in all, then undelivered; five in a row stop the run"
    PROBE = "send one of the records alone: if it passes, isolate as above; if not, stop the run"
    STOP = "stop the run within seconds; nothing is dead-lettered"
    LEAVE = "list the records as ambiguous; do not send them again"


ACTIONS: Final = {
    AnswerClass.OK: Action.ACCEPT,
    AnswerClass.PARTIAL: Action.ACCEPT_REST,
    AnswerClass.THROTTLED: Action.SLOW_DOWN,
    AnswerClass.TRANSIENT: Action.RETRY,
    AnswerClass.AMBIGUOUS: Action.RETRY,
    AnswerClass.TOO_LARGE: Action.HALVE,
    AnswerClass.RECORD: Action.ISOLATE,
    AnswerClass.PROTOCOL: Action.RETRY_FEW,
    AnswerClass.FATAL: Action.STOP,
}

PROTOCOL_TRIES: Final = 3
NO_CONNECTION: Final = "no connection"
CONNECTION_BROKEN: Final = "connection broken"
CONFLICT_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class StatusRow:
    """What some statuses mean, whatever the body says.

    Attributes:
        statuses: the statuses.
        kind: what they mean.
        why: in words.
        action: what is done, where it is not what is done about the class in general.
        tries: how often the same bytes are sent with this answer, at most, or None for the deadline alone.
    """

    statuses: tuple[int, ...] | range
    kind: AnswerClass
    why: str
    action: Action | None = None
    tries: int | None = None

    @property
    def shown(self) -> str:
        """The statuses as a person writes them."""
        if isinstance(self.statuses, range):
            return f"other {self.statuses.start // 100}xx"
        return ", ".join(map(str, self.statuses))


# The first row that holds a status counts. 200 and 400 are read first and come here only where their body is
# not what Mixpanel documents.
STATUS_ROWS: Final = (
    StatusRow((200,), AnswerClass.PROTOCOL, "not the documented JSON, or its numbers do not add up"),
    StatusRow((400,), AnswerClass.RECORD, "refused, without a list of records that can be relied on"),
    StatusRow((401,), AnswerClass.FATAL, "wrong credentials, or the wrong region"),
    StatusRow((402, 451), AnswerClass.FATAL, "refused for good: plan, quota or law (exit code 7)"),
    StatusRow((403,), AnswerClass.FATAL, "not allowed; as a page, a firewall that may dislike one record"),
    StatusRow(
        (404, 405, 406, 410, 414, 421, 501, 505), AnswerClass.FATAL, "not an endpoint that imports events"
    ),
    StatusRow((408, 425), AnswerClass.TRANSIENT, "not taken, too slow or too early"),
    StatusRow(
        (409, 423), AnswerClass.TRANSIENT, "busy with something else: five tries", tries=CONFLICT_TRIES
    ),
    StatusRow((411, 415, 422, 431), AnswerClass.FATAL, "our request is not understood", action=Action.PROBE),
    StatusRow((413,), AnswerClass.TOO_LARGE, "too many bytes"),
    StatusRow((429,), AnswerClass.THROTTLED, "above the project's rate limit"),
    StatusRow((503,), AnswerClass.TRANSIENT, "the service does not take requests now"),
    StatusRow((500, 502, 504), AnswerClass.AMBIGUOUS, "the service failed, perhaps after the import"),
    StatusRow(range(200, 300), AnswerClass.PROTOCOL, "a success that Mixpanel does not document"),
    StatusRow(range(300, 400), AnswerClass.FATAL, "a redirect; it is not followed"),
    StatusRow(range(400, 500), AnswerClass.FATAL, "unknown refusal", action=Action.PROBE),
    StatusRow(range(500, 600), AnswerClass.AMBIGUOUS, "unknown failure, perhaps after the import"),
)
OTHER_STATUS: Final = StatusRow((), AnswerClass.PROTOCOL, "no status of HTTP")

# A 403 that is a page and no JSON comes from something in front of Mixpanel, which may only dislike what one
# record says.
PAGE_MAY_BE_A_FIREWALL: Final = frozenset({403})
# Refusals that are about the plan or the project, not about who asks (exit code 7 instead of 3).
REFUSED_FOR_GOOD: Final = frozenset({402, 451})


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """What it means that no whole answer came.

    Attributes:
        label: how reports call it.
        errors: the errors by which it shows.
        kind: what it means.
        why: in words.
        sent: False if the request certainly never left as a whole.
    """

    label: str
    errors: tuple[type[BaseException], ...]
    kind: AnswerClass
    why: str
    sent: bool = True


# The first row that has an error, or one behind it, counts.
BROKEN_ROWS: Final = (
    BrokenRow(
        "bad certificate",
        (ssl.SSLCertVerificationError,),
        AnswerClass.FATAL,
        "the server's TLS certificate does not hold",
        sent=False,
    ),
    BrokenRow(
        NO_CONNECTION,
        (
            transport.NewConnectionError,  # DNS failures, too
            transport.ConnectTimeoutError,
            transport.EmptyPoolError,
            NotConnected,  # the handshake of TLS is broken off, or the other side speaks none
        ),
        AnswerClass.TRANSIENT,
        "no connection to the endpoint; before the first answer of a run, three in a row stop it",
        sent=False,
    ),
    BrokenRow(
        "no answer in time",
        (transport.ReadTimeoutError, TimeoutError),
        AnswerClass.AMBIGUOUS,
        "no whole answer came in time",
    ),
    BrokenRow(
        CONNECTION_BROKEN,
        (transport.HTTPError, OSError),
        AnswerClass.AMBIGUOUS,
        "the connection broke before a whole answer came",
    ),
)
# No trouble of the network, and no row that docs/delivery.md shows: nothing is sent any more by then.
GIVEN_UP: Final = BrokenRow(
    "given up", (GivenUp,), AnswerClass.AMBIGUOUS, "the run ended before an answer came"
)


def status_row(status: int) -> StatusRow:
    """Returns the row of a status.

    >>> status_row(429).kind.name, status_row(418).action.name, status_row(302).kind.name
    ('THROTTLED', 'PROBE', 'FATAL')
    """
    return next((row for row in STATUS_ROWS if status in row.statuses), OTHER_STATUS)


def broken_row(error: BaseException) -> BrokenRow:
    """Returns the row of an error by which a request failed; also of one that it wraps."""
    if isinstance(error, GivenUp):
        return GIVEN_UP
    chain = list(_chain(error))
    return next(
        (row for row in BROKEN_ROWS if any(isinstance(e, row.errors) for e in chain)), BROKEN_ROWS[-1]
    )


def _chain(error: BaseException | None) -> list[BaseException]:
    """Returns an error and those behind it, as urllib3 wraps them: as reason, argument or cause."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        behind = [getattr(error, "reason", None), *error.args, error.__cause__]
        error = next((e for e in behind if isinstance(e, BaseException)), None)
    return found
