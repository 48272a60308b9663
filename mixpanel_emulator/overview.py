"""What the page for people shows, gathered from the store."""

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from mixpanel_emulator import answers
from mixpanel_emulator.faults import FaultBook
from mixpanel_emulator.gauges import Gauges
from mixpanel_emulator.page import PAGE, PAGE_HEADERS
from mixpanel_emulator.records import Wanted, read_records
from mixpanel_emulator.stats import Statistics
from mixpanel_emulator.store import Store
from mixpanel_emulator.wire import query, respond

DAYS = 366  # more bars than that are narrower than a pixel; longer histories are shown by month
NAMES = 12
LATEST = 25
SHOWN_CHARACTERS = 2000
MINUTE_MS = 60_000

_BY_DAY = "SELECT date(day * 86400, 'unixepoch') AS at, sum(events) FROM tally GROUP BY at ORDER BY at"
_BY_MONTH = (
    "SELECT strftime('%Y-%m', day * 86400, 'unixepoch') AS at, sum(events) FROM tally GROUP BY at ORDER BY at"
)
_BY_NAME = "SELECT name, sum(events) AS total FROM tally GROUP BY name ORDER BY total DESC, name"
_REASONS = "SELECT field, message, count(*) AS total FROM refused GROUP BY 1, 2 ORDER BY total DESC LIMIT 25"
_REQUESTS = (
    "SELECT received_ms, took_ms, method, path, status, records, stored, refused, bytes_raw, bytes_wire,"
    " fault FROM request ORDER BY id DESC LIMIT 25"
)
_PER_SECOND = (
    "SELECT (received_ms - ?1) / 1000 AS second, status, count(*), sum(stored) FROM request"
    " WHERE received_ms >= ?1 AND received_ms < ?2 GROUP BY 1, 2"
)
_PROFILES = "SELECT group_key, id, properties FROM profile ORDER BY seen_ms DESC LIMIT 25"
_REQUEST_KEYS = (
    *("received_ms", "took_ms", "method", "path", "status", "records", "stored", "refused"),
    *("bytes_raw", "bytes_wire", "fault"),
)


class Page:
    """The page at `/` and the data behind it."""

    def __init__(self, store: Store, faults: FaultBook, gauges: Gauges) -> None:
        """Makes the page over a store."""
        self._store = store
        self._faults = faults
        self._gauges = gauges
        self._statistics = Statistics(store)

    async def show(self, request: Request) -> Response:
        """Answers GET /."""
        return Response(PAGE, headers=PAGE_HEADERS)

    async def data(self, request: Request) -> Response:
        """Answers GET /_emulator/overview."""
        overview = await query(self._overview)
        overview["gauges"] = self._gauges.read()._asdict()
        overview["faults"] = self._faults.counts()
        return respond(answers.as_json(200, overview))

    def _overview(self) -> dict[str, Any]:
        counts = self._statistics.read(exact=False)
        return {
            "counts": counts,
            **self._charts(),
            **self._last_minute(counts["last_time"]),
            "latest": self._latest_events(counts["events"]),
            "profiles": [_profile(row) for row in self._store.rows(_PROFILES)],
            "reasons": [list(row) for row in self._store.rows(_REASONS)],
            "refused": self._latest_refused(),
            "requests": [dict(zip(_REQUEST_KEYS, row, strict=True)) for row in self._store.rows(_REQUESTS)],
        }

    def _charts(self) -> dict[str, Any]:
        (days,) = self._store.rows("SELECT count(DISTINCT day) FROM tally")[0]
        names = self._store.rows(_BY_NAME)
        rest = sum(total for _, total in names[NAMES:])
        return {
            "unit": "day" if days <= DAYS else "month",
            "series": [list(row) for row in self._store.rows(_BY_DAY if days <= DAYS else _BY_MONTH)],
            "names": [list(row) for row in names[:NAMES]],
            "other_names": [len(names[NAMES:]), rest],
        }

    def _last_minute(self, last_ms: int | None) -> dict[str, Any]:
        now_ms = int(time.time() * 1000)
        over = last_ms is not None and last_ms < now_ms - MINUTE_MS
        end_ms = last_ms + 1 if over and last_ms else now_ms + 1
        rows = self._store.rows(_PER_SECOND, (end_ms - MINUTE_MS, end_ms))
        return {"minute": [list(row) for row in rows], "minute_ends_ms": end_ms, "is_live": not over}

    def _latest_events(self, events: int) -> list[str]:
        wanted = Wanted(limit=LATEST, offset=max(0, events - LATEST))
        return [_shown(raw) for raw in read_records(self._store, wanted)][::-1]

    def _latest_refused(self) -> list[str]:
        (total,) = self._store.rows("SELECT count(*) FROM refused")[0]
        wanted = Wanted("refused", limit=LATEST, offset=max(0, total - LATEST))
        return [_shown(raw) for raw in read_records(self._store, wanted)][::-1]


def _shown(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace")
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " …"


def _profile(row: tuple[str, str, bytes]) -> dict[str, str]:
    group_key, identifier, properties = row
    return {"group_key": group_key, "id": identifier, "properties": _shown(bytes(properties))}
