"""GET /api/2.0/export: raw events, every stored copy of them."""

import itertools
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timezone

import orjson
from isal import isal_zlib
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from mixpanel_emulator import answers
from mixpanel_emulator.access import may_import, read_credentials
from mixpanel_emulator.answers import PLAIN, Answer
from mixpanel_emulator.bodies import GZIP_WINDOW, STORED_LEVEL
from mixpanel_emulator.exchange import Exchange, exchange_of
from mixpanel_emulator.expressions import compile_expression
from mixpanel_emulator.limiter import QuotaWindow
from mixpanel_emulator.pieces import in_pieces
from mixpanel_emulator.reading import Filter, Shown, events_shown, names_of, period_of
from mixpanel_emulator.settings import Settings
from mixpanel_emulator.store import Store
from mixpanel_emulator.wire import respond

LIMIT = 100_000  # OAI-EXP
PER_SECOND = 3  # OAI-EXP
COMPRESSED_FROM = 1400  # OAI-EXP: smaller answers are never compressed
TERMINATED = b"terminated early"  # I-U5: the last line of a stream that broke on the server's side


class ExportApi:
    """The endpoint."""

    def __init__(self, settings: Settings, store: Store) -> None:
        """Makes the endpoint over a store."""
        self._settings = settings
        self._store = store
        self.quota = QuotaWindow(settings.export_per_hour, PER_SECOND)

    async def get(self, request: Request) -> Response:
        """Answers GET /api/2.0/export."""
        credentials = read_credentials(request.headers.get("authorization", ""))
        if not may_import(self._settings, credentials, request.query_params):
            return respond(answers.error(401, answers.INVALID_CREDENTIALS))
        try:
            wanted, limit = self._wanted(request)
        except ValueError as problem:
            return respond(Answer(400, str(problem).encode(), PLAIN))
        wait_s = self.quota.take()
        if wait_s:
            refusal = answers.error(
                429, "Export rate limit exceeded. Limits: 60 queries per hour, 3 per second."
            )
            return respond(refusal._replace(headers={"retry-after": str(wait_s)}))  # I-PH
        in_ms = request.query_params.get("time_in_ms", "false").lower() == "true"
        pieces = in_pieces(_ending_early(self._lines(wanted, limit, in_ms), exchange_of(request)))
        return _stream(pieces, "gzip" in request.headers.get("accept-encoding", ""))

    def _wanted(self, request: Request) -> tuple[Filter, int | None]:
        given = request.query_params
        first, last = _date(given.get("from_date"), "from_date"), _date(given.get("to_date"), "to_date")
        if last > datetime.now(timezone.utc).date():
            raise ValueError("to_date cannot be later than today")  # AIRB
        if first > last:
            raise ValueError("from_date cannot be later than to_date")
        limit = _limit(given.get("limit"))
        where = given.get("where")
        expression = compile_expression(where) if where else None
        return Filter(period_of(first, last), names_of(given.get("event")), expression), limit

    def _lines(self, wanted: Filter, limit: int | None, in_ms: bool) -> Iterator[bytes]:
        with self._store.reading() as connection:
            found = events_shown(connection, self._settings, wanted)
            for shown in itertools.islice(found, limit):
                yield _line(shown, in_ms)


def _date(text: str | None, name: str) -> date:
    if not text:
        raise ValueError(f"{name} is required")
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{name} must be a date of the form yyyy-mm-dd") from None


def _limit(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or not 0 < int(text) <= LIMIT:
        raise ValueError(f"limit must be a number from 1 to {LIMIT}")
    return int(text)


def _line(shown: Shown, in_ms: bool) -> bytes:
    if in_ms:
        shown.properties["time"] = shown.time_ms
    return orjson.dumps({"event": shown.name, "properties": shown.properties})


def _ending_early(lines: Iterator[bytes], exchange: Exchange) -> Iterator[bytes]:
    """Yields the lines; when a fault says so, some of the first only, and then that it broke."""
    if not exchange.end_early:
        yield from lines
        return
    head = list(itertools.islice(lines, 1000))
    exchange.ended_early = True
    yield from head[: len(head) // 2]
    yield TERMINATED


def _stream(pieces: Iterator[bytes], accepts_gzip: bool) -> Response:
    first = next(pieces, b"")
    everything: Iterable[bytes] = itertools.chain([first], pieces)
    if accepts_gzip and len(first) > COMPRESSED_FROM:
        return StreamingResponse(
            _compressed(everything), media_type="text/plain", headers={"content-encoding": "gzip"}
        )
    return StreamingResponse(everything, media_type="text/plain")


def _compressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    compressor = isal_zlib.compressobj(STORED_LEVEL, isal_zlib.DEFLATED, GZIP_WINDOW)
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()
