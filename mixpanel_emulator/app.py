"""The emulator put together: one store, one project's settings, and every path it answers."""

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from mixpanel_emulator.control import ControlApi
from mixpanel_emulator.export_api import ExportApi
from mixpanel_emulator.faults import FaultBook
from mixpanel_emulator.gauges import Gauges
from mixpanel_emulator.import_api import ImportApi
from mixpanel_emulator.intake import EventIntake
from mixpanel_emulator.lexicon_api import LexiconApi
from mixpanel_emulator.limiter import RateLimiter
from mixpanel_emulator.lookup_tables import LookupTableApi
from mixpanel_emulator.overview import Page
from mixpanel_emulator.profile_intake import ProfileIntake
from mixpanel_emulator.profile_query_api import ProfileQueryApi
from mixpanel_emulator.query_api import QueryApi
from mixpanel_emulator.sdk_api import SdkApi
from mixpanel_emulator.settings import Settings
from mixpanel_emulator.store import Store
from mixpanel_emulator.traffic import Traffic

CLIENT_CLOSED_REQUEST = 499  # how a request is remembered that was never finished; nobody sees it
LEXICON_METHODS = ["GET", "POST", "PATCH", "DELETE"]


async def _client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


HANDLERS = {ClientDisconnect: _client_gone}


class Emulator:
    """A Mixpanel project over a store; `app` is its ASGI application."""

    def __init__(self, store: Store, settings: Settings) -> None:
        """Wires the endpoints."""
        self.gauges = Gauges()
        self._store = store
        self._limiter = RateLimiter(settings.rate_events, settings.rate_bytes, settings.rate_window_s)
        faults = FaultBook()
        intake = EventIntake(settings, store)
        imports = ImportApi(settings, intake, self._limiter)
        profiles = ProfileIntake(settings, store, group=False)
        groups = ProfileIntake(settings, store, group=True)
        sdk = SdkApi(settings, intake, profiles, groups, self._limiter)
        tables = LookupTableApi(settings, store)
        self._export = export = ExportApi(settings, store)
        self._queries = queries = QueryApi(settings, store)
        people = ProfileQueryApi(settings, store, queries.quota)
        lexicon = LexiconApi(settings, store)
        control = ControlApi(store, faults, self.gauges, self._forget)
        page = Page(store, faults, self.gauges)
        routes = [
            Route("/", page.show),
            Route("/_emulator/overview", page.data),
            Route("/import", imports.post, methods=["POST"]),
            Route("/track", sdk.track, methods=["GET", "POST"]),
            Route("/engage", sdk.engage, methods=["GET", "POST"]),
            Route("/groups", sdk.groups, methods=["GET", "POST"]),
            Route("/lookup-tables", tables.get, methods=["GET"]),
            Route("/lookup-tables/{table}", tables.put, methods=["PUT"]),
            Route("/api/2.0/export", export.get),
            *_everywhere("/events", queries.events),
            *_everywhere("/events/names", queries.names),
            *_everywhere("/segmentation", queries.segmentation),
            *_everywhere("/engage", people.ask),
            *(
                Route(f"/api/app/projects/{{project}}/schemas{end}", lexicon.answer, methods=LEXICON_METHODS)
                for end in ("", "/{type}", "/{type}/{name:path}")
            ),
            Route("/_emulator/stats", control.stats),
            Route("/_emulator/records", control.records),
            Route("/_emulator/faults", control.get_faults, methods=["GET"]),
            Route("/_emulator/faults", control.set_faults, methods=["POST"]),
            Route("/_emulator/reset", control.reset, methods=["POST"]),
        ]
        served = Starlette(routes=routes, exception_handlers=HANDLERS)
        self.app: ASGIApp = Traffic(served, store, faults, self.gauges)

    def _forget(self) -> None:
        self._limiter.clear()
        self._export.quota.clear()
        self._queries.quota.clear()

    def close(self) -> None:
        """Closes the store."""
        self._store.close()


def _everywhere(path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> list[Route]:
    """Returns a query endpoint under both bases, with and without a last slash (OAI-QRY, UTILS, HL)."""
    bases = ("/api/query", "/api/2.0")
    return [
        Route(base + path + end, endpoint, methods=["GET", "POST"]) for base in bases for end in ("", "/")
    ]
