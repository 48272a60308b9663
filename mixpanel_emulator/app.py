"""The emulator put together: one store, one project's settings, and every path it answers."""

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

from mixpanel_emulator.control import ControlApi
from mixpanel_emulator.faults import FaultBook
from mixpanel_emulator.gauges import Gauges
from mixpanel_emulator.import_api import ImportApi
from mixpanel_emulator.intake import EventIntake
from mixpanel_emulator.limiter import RateLimiter
from mixpanel_emulator.settings import Settings
from mixpanel_emulator.store import Store
from mixpanel_emulator.traffic import Traffic


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
        control = ControlApi(store, faults, self.gauges, self._limiter.clear)
        routes = [
            Route("/import", imports.post, methods=["POST"]),
            Route("/_emulator/stats", control.stats),
            Route("/_emulator/records", control.records),
            Route("/_emulator/faults", control.get_faults, methods=["GET"]),
            Route("/_emulator/faults", control.set_faults, methods=["POST"]),
            Route("/_emulator/reset", control.reset, methods=["POST"]),
        ]
        self.app: ASGIApp = Traffic(Starlette(routes=routes), store, faults, self.gauges)

    def close(self) -> None:
        """Closes the store."""
        self._store.close()
