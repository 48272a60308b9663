"""/api/query: counts of events as reports show them, that is, with one of each set of copies."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from typing import Any, NamedTuple

import orjson
from starlette.requests import Request
from starlette.responses import Response

from mixpanel_emulator import answers
from mixpanel_emulator.access import may_import, read_credentials
from mixpanel_emulator.answers import Answer
from mixpanel_emulator.event_rules import DAY_MS
from mixpanel_emulator.expressions import Expression, compile_expression
from mixpanel_emulator.limiter import QuotaWindow
from mixpanel_emulator.reading import Filter, Shown, events_shown, names_of, period_of
from mixpanel_emulator.settings import Settings
from mixpanel_emulator.store import Store
from mixpanel_emulator.wire import query, respond, whole_number

NAMES_DAYS = 31  # OAI-QRY: the names of the last 31 days
NAMES_LIMIT = 255
MAX_NAMES = 5000  # HL
MAX_INTERVAL = 10_000
SEGMENTS = 60  # SEG: segments shown by default
MAX_SEGMENTS = 10_000  # SEG
UNITS = ("minute", "hour", "day", "week", "month")


class Asked(NamedTuple):
    """A question for counts over time."""

    events: Filter
    unit: str
    unique: bool
    on: Expression | None = None
    limit: int = SEGMENTS


class QueryApi:
    """The counting endpoints."""

    def __init__(self, settings: Settings, store: Store) -> None:
        """Makes the endpoints over a store."""
        self._settings = settings
        self._store = store
        self.quota = QuotaWindow(settings.query_per_hour)

    async def events(self, request: Request) -> Response:
        """Answers GET /api/query/events."""
        return await self._answer(request, self._events)

    async def segmentation(self, request: Request) -> Response:
        """Answers GET /api/query/segmentation."""
        return await self._answer(request, self._segmentation)

    async def names(self, request: Request) -> Response:
        """Answers GET /api/query/events/names."""
        return await self._answer(request, self._names)

    async def _answer(self, request: Request, count: Any) -> Response:
        refusal = refuse(request, self._settings, self.quota)
        if refusal:
            return respond(refusal)
        try:
            return respond(answers.as_json(200, await query(count, dict(request.query_params))))
        except ValueError as problem:
            return respond(query_error(request, 400, str(problem)))

    def _events(self, given: dict[str, str]) -> dict[str, Any]:
        names = names_of(given.get("event"))
        if not names:
            raise ValueError("event is required")
        return self._counted(_asked(given, names), given)

    def _segmentation(self, given: dict[str, str]) -> dict[str, Any]:
        if not given.get("event"):
            raise ValueError("event is required")
        asked = _asked(given, [given["event"]])
        on = compile_expression(_on(given["on"])) if given.get("on") else None
        return self._counted(asked._replace(on=on), given)

    def _counted(self, asked: Asked, given: dict[str, str]) -> dict[str, Any]:
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        seen: set[tuple[str, str, Any]] = set()
        for shown in self._found(asked):
            segment, moment = _segment(shown, asked.on), _moment(shown.time_ms, asked.unit)
            if asked.unique:
                person = (segment, moment, shown.properties["distinct_id"])
                if person in seen:
                    continue
                seen.add(person)
            counts[segment][moment] += 1
        return _series(asked, counts)

    def _found(self, asked: Asked) -> Iterator[Shown]:
        with self._store.reading() as connection:
            yield from events_shown(connection, self._settings, asked.events)

    def _names(self, given: dict[str, str]) -> list[str]:
        period = _period(given, NAMES_DAYS)
        sql = (
            "SELECT name FROM tally WHERE day >= ? AND day < ?"
            " GROUP BY name ORDER BY sum(events) DESC, name LIMIT ?"
        )
        days = (period.start_ms // DAY_MS, period.end_ms // DAY_MS)
        return [
            row[0]
            for row in self._store.rows(sql, (*days, whole_number(given, "limit", NAMES_LIMIT, MAX_NAMES)))
        ]


def refuse(request: Request, settings: Settings, quota: QuotaWindow) -> Answer | None:
    """Returns the answer to a query that is refused for who asks or how often, None where it is not."""
    credentials = read_credentials(request.headers.get("authorization", ""))
    if not may_import(settings, credentials, request.query_params):
        return query_error(request, 401, answers.INVALID_CREDENTIALS)
    wait_s = quota.take()
    if not wait_s:
        return None
    project = request.query_params.get("project_id", "0")
    most = settings.query_per_hour
    message = (
        f"Query rate limit exceeded for project_id: {project}. 1/5 queries running concurrently and"
        f" {most + 1}/{most} queries running in the last hour."  # I-AB
    )
    return query_error(request, 429, message)._replace(headers={"retry-after": str(wait_s)})


def query_error(request: Request, status: int, message: str) -> Answer:
    """Returns an error in the shape of the query API."""
    return answers.as_json(status, {"request": request.url.path, "error": message, "status": "error"})


def _asked(given: dict[str, str], names: list[str]) -> Asked:
    unit = given.get("unit", "day")
    if unit not in UNITS:
        raise ValueError(f"unit must be one of {', '.join(UNITS)}")
    where = compile_expression(given["where"]) if given.get("where") else None
    wanted = Filter(_period(given, 30), names, where, distinct=True)
    limit = whole_number(given, "limit", SEGMENTS, MAX_SEGMENTS)
    return Asked(wanted, unit, given.get("type", "general") == "unique", limit=limit)


def _period(given: dict[str, str], days: int) -> Any:
    today = datetime.now(timezone.utc).date()
    last = date.fromisoformat(given["to_date"]) if given.get("to_date") else today
    span = timedelta(days=max(1, whole_number(given, "interval", days, MAX_INTERVAL)) - 1)
    first = date.fromisoformat(given["from_date"]) if given.get("from_date") else last - span
    return period_of(first, last)


def _on(text: str) -> str:
    """Returns an expression; a bare property name stands for that property."""
    return text if "[" in text or "(" in text else f"properties[{orjson.dumps(text).decode()}]"


def _segment(shown: Shown, on: Expression | None) -> str:
    if on is None:
        return shown.name
    value = on(shown.subject())
    return value if isinstance(value, str) else orjson.dumps(value).decode().replace("null", "undefined")


def _moment(time_ms: int, unit: str) -> str:
    moment = datetime.fromtimestamp(time_ms / 1000, timezone.utc)
    if unit in ("minute", "hour"):
        return moment.strftime("%Y-%m-%d %H:%M:00" if unit == "minute" else "%Y-%m-%d %H:00:00")
    return _first_day(moment.date(), unit).isoformat()


def _first_day(day: date, unit: str) -> date:
    if unit == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if unit == "month" else day


def _series(asked: Asked, counts: dict[str, Counter[str]]) -> dict[str, Any]:
    shown = sorted(counts, key=lambda segment: (-counts[segment].total(), segment))[: asked.limit]
    if asked.on is None:
        shown = [*(asked.events.names or [])]
    series = _moments(asked) or sorted({moment for segment in shown for moment in counts[segment]})
    values = {segment: {moment: counts[segment][moment] for moment in series} for segment in shown}
    return {"data": {"series": series, "values": values}, "legend_size": len(shown)}


def _moments(asked: Asked) -> list[str]:
    if asked.unit in ("minute", "hour"):
        return []
    start, end = asked.events.period
    days = range(start, end, DAY_MS)
    return list(dict.fromkeys(_moment(day, asked.unit) for day in days))
