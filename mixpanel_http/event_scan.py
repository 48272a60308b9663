"""Prepares whole blocks of events by the C extension.

One pass over a block's bytes tells which lines certainly keep all rules and what these lack, and which
certainly break one, as whole files can; another writes the former with what they lack. Every other line goes
to the judge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, repeat
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from mixpanel_http import flaws, limits
from mixpanel_http.compiled import extension
from mixpanel_http.event_rules import (
    DEFAULTED_IP,
    STAMPED_ID,
    SURELY_FEW,
    EventRules,
    Place,
    check_event,
    make_id,
)
from mixpanel_http.flaws import Flaw
from mixpanel_http.insert_ids import content_id, id_of_canonical, located
from mixpanel_http.prepared import PreparedRecords
from mixpanel_http.record_syntax import BLANK, CUT_SHORT, syntax_problem
from mixpanel_http.verdicts import Reason, RecordRefused, Rejection

if TYPE_CHECKING:
    from mixpanel_http._native import Scan, Scanner

IS_BUILT: Final = extension is not None
_index: Final = attrgetter("index")
_INVALID_JSON: Final = Reason.INVALID_JSON.value
_NOT_UTF8: Final = "not_utf8"
FLAWS: Final[Mapping[str, Flaw]] = {
    "no_properties": flaws.NO_PROPERTIES,
    "no_event": flaws.NO_EVENT,
    "no_time": flaws.NO_TIME,
    "time_as_text": flaws.time_as("text"),
    "early_time": flaws.EARLY_TIME,
    "late_time": flaws.LATE_TIME,
    "identity_event": flaws.IDENTITY_EVENT,
    "disallowed_id": flaws.DISALLOWED_ID,
    "no_distinct_id": flaws.NO_DISTINCT_ID,
    "cut_short": Flaw(Reason.INVALID_JSON, None, CUT_SHORT),
    "lone_surrogate": flaws.LONE_SURROGATE,
    "nan": flaws.non_finite("NaN"),
    "infinity": flaws.non_finite("Infinity"),
    "minus_infinity": flaws.non_finite("-Infinity"),
}
"""What is told of a line, by the extension's name for what is wrong with it; of `not_utf8`, that depends."""


def _made_scanner() -> Scanner | None:
    if extension is None:
        return None
    return extension.Scanner(
        identity_events=[name.encode() for name in limits.IDENTITY_EVENTS],
        disallowed_ids=[name.lower().encode() for name in limits.DISALLOWED_IDS],
        most_members=SURELY_FEW,
        most_nesting=limits.MAX_NESTING,
        most_bytes=limits.MAX_RECORD_BYTES // 2,
        longest_insert_id=limits.MAX_INSERT_ID_BYTES,
        earliest_s=limits.MIN_TIME_S,
        earliest_ms=limits.MIN_TIME_MS,
    )


scanner: Final = _made_scanner()


def prepare_by_scan(
    raw: bytes, rules: EventRules, now_s: float, place: Callable[[int], Place] | None = None
) -> PreparedRecords:
    """Returns a block's events ready to be sent; `event_blocks.prepare_events` says of what."""
    assert scanner is not None, "the C extension is not built"
    scan = scanner.scan(raw, int(now_s) + limits.MAX_FUTURE_S, rules.identity == "simplified")
    return _Preparation(scan, rules, now_s, place or _nowhere).records()


def _nowhere(_index: int) -> Place:
    return "", 0


def _rejections(scan: Scan, name: str, lines: Iterable[int]) -> Iterable[Rejection]:
    """Returns the refusals of lines that all have one flaw; they may be a block's every line."""
    if name == _NOT_UTF8:
        return [_not_utf8(index, *scan.broken(index)) for index in lines]
    reason, field, message = FLAWS[name]
    return map(Rejection, lines, repeat(reason.value), repeat(field), repeat(message))


def _not_utf8(index: int, position: int, key: bytes | None) -> Rejection:
    reason, field, message = flaws.not_utf8(position, None if key is None else flaws.field_of(key))
    return Rejection(index, reason.value, field, message)


class _Preparation:
    """What becomes of a scanned block's lines: which go to the judge, and the ids of those without one."""

    def __init__(self, scan: Scan, rules: EventRules, now_s: float, place: Callable[[int], Place]) -> None:
        self._scan = scan
        self._rules = rules
        self._now_s = now_s
        self._place = place
        self._out = set(chain.from_iterable(scan.refused.values()))  # lines that are not sent
        self._rejections = [
            rejection for name, lines in scan.refused.items() for rejection in _rejections(scan, name, lines)
        ]
        self._stamped: list[str] = []
        self._alterations: Counter[str] = Counter()

    def records(self) -> PreparedRecords:
        """Returns the block."""
        scan = self._scan
        judged = [self._judged(index) for index in scan.suspects]
        ids = self._ids()
        body, defaulted = scan.body(ids, judged, self._rules.default_ip)
        self._alterations.update({DEFAULTED_IP: defaulted})
        return PreparedRecords(
            body,
            scan.count - len(self._out),
            tuple(sorted(set(range(scan.count)) - self._out)) if self._out else None,
            rejections=tuple(sorted(self._rejections, key=_index)),
            blank=len(self._out) - len(self._rejections),
            stamped_ids=tuple(self._stamped),
            alterations=+self._alterations,
        )

    def _judged(self, index: int) -> bytes | None:
        """Returns a record as the judge has it sent, or None for a blank line and for what it refuses."""
        line = self._scan.line(index)
        if not line.strip(BLANK):
            self._out.add(index)
            return None
        problem = syntax_problem(line) if len(line) < limits.MAX_RECORD_BYTES else None
        if problem is not None:
            self._out.add(index)
            self._rejections.append(Rejection(index, _INVALID_JSON, None, problem))
            return None
        try:
            accepted = check_event(line, self._rules, self._now_s, self._place(index))
        except RecordRefused as refused:
            self._refuse(index, refused)
            return None
        self._alterations.update(accepted.alterations)
        if accepted.stamped_id is not None:
            self._stamped.append(accepted.stamped_id)
        return accepted.line

    def _ids(self) -> list[str | None]:
        """Returns an id for each clean event without one, or None where it has nothing to make it from."""
        by_content = self._rules.insert_id.mode == "content"
        made = self._ids_of_content() if by_content else [self._id(i) for i in self._scan.without_id]
        given = [insert_id for insert_id in made if insert_id is not None]
        self._stamped += given
        self._alterations[STAMPED_ID] += len(given)
        return made

    def _ids_of_content(self) -> list[str | None]:
        scan = self._scan
        contents = zip(scan.without_id, scan.contents(), strict=True)
        ids = [id_of_canonical(text) if text else content_id(scan.line(index)) for index, text in contents]
        if self._rules.insert_id.keeps_rows:
            ids = [located(made, *self._place(i)) for made, i in zip(ids, scan.without_id, strict=True)]
        return list(ids)

    def _id(self, index: int) -> str | None:
        try:
            return make_id(self._scan.line(index), self._rules.insert_id, self._place(index))
        except RecordRefused as refused:
            self._refuse(index, refused)
            return None

    def _refuse(self, index: int, refused: RecordRefused) -> None:
        self._out.add(index)
        self._rejections.append(refused.rejection(index))
