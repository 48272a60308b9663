"""The emulator's own side, under /_emulator: what it holds, faults, and a fresh start."""

from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from mixpanel_emulator import answers
from mixpanel_emulator.faults import FaultBook, read_scripts
from mixpanel_emulator.gauges import Gauges
from mixpanel_emulator.pieces import in_pieces
from mixpanel_emulator.records import KINDS, Wanted, read_records
from mixpanel_emulator.stats import Statistics
from mixpanel_emulator.store import Store
from mixpanel_emulator.wire import query, respond, whole_number

MOST = 10**15


class ControlApi:
    """The endpoints that Mixpanel does not have."""

    def __init__(self, store: Store, faults: FaultBook, gauges: Gauges, forget: Callable[[], None]) -> None:
        """Makes the endpoints; `forget` empties what is held outside of the store."""
        self._store = store
        self._faults = faults
        self._gauges = gauges
        self._forget = forget
        self._statistics = Statistics(store)

    async def stats(self, request: Request) -> Response:
        """Answers GET /_emulator/stats."""
        counts = await query(lambda: self._statistics.read(exact="quick" not in request.query_params))
        counts |= self._gauges.read()._asdict()
        counts["reused_connections"] = max(0, counts["requests"] - counts["connections"])
        counts["faults"] = self._faults.counts()
        return respond(answers.as_json(200, counts))

    async def records(self, request: Request) -> Response:
        """Answers GET /_emulator/records: NDJSON, every record as it was received."""
        try:
            wanted = _wanted(request)
        except ValueError as error:
            return respond(answers.error(400, str(error)))
        return StreamingResponse(
            in_pieces(read_records(self._store, wanted)), media_type="application/x-ndjson"
        )

    async def set_faults(self, request: Request) -> Response:
        """Answers POST /_emulator/faults."""
        try:
            scripts = read_scripts(await request.body())
        except msgspec.DecodeError as error:
            return respond(answers.error(400, str(error)))
        self._faults.replace(scripts)
        return respond(answers.as_json(200, {"faults": len(scripts)}))

    async def get_faults(self, request: Request) -> Response:
        """Answers GET /_emulator/faults: how often each has happened."""
        return respond(answers.as_json(200, self._faults.counts()))

    async def reset(self, request: Request) -> Response:
        """Answers POST /_emulator/reset."""
        await query(self._store.reset)
        self._statistics.forget()
        self._faults.replace([])
        self._gauges.clear()
        self._forget()
        return respond(answers.as_json(200, {"status": "ok"}))


def _wanted(request: Request) -> Wanted:
    given = request.query_params
    kind = given.get("kind", "events")
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}")
    limit = whole_number(given, "limit", 0, MOST) if given.get("limit") else -1
    return Wanted(
        kind, given.get("event"), given.get("distinct_id"), limit, whole_number(given, "offset", 0, MOST)
    )
