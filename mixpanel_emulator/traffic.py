"""Around every request on Mixpanel's own paths: it is measured, remembered, and struck by faults."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mixpanel_emulator.exchange import Exchange
from mixpanel_emulator.fault_effects import strike
from mixpanel_emulator.faults import FaultBook
from mixpanel_emulator.gauges import ON_USE, Gauges
from mixpanel_emulator.store import Store

OWN_PATHS = ("/_emulator", "/favicon.ico")


class Traffic:
    """The ASGI layer between the server and the endpoints."""

    def __init__(self, app: ASGIApp, store: Store, faults: FaultBook, gauges: Gauges) -> None:
        """Wraps `app`."""
        self._app = app
        self._store = store
        self._faults = faults
        self._gauges = gauges

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        path = scope.get("path", "")
        if scope["type"] != "http" or path == "/" or path.startswith(OWN_PATHS):
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope["method"], path)
        scope["state"]["exchange"] = exchange
        scope.get("extensions", {}).get(ON_USE, _nothing)()
        with self._gauges.one_more_request():
            struck = self._faults.strike(scope["method"], path)
            exchange.fault = ",".join(fault.script.name for fault in struck)
            ends = _measured(receive, exchange), self._remembering(send, exchange)
            if struck:
                await strike(struck, self._faults.record, self._app, scope, *ends)
            else:
                await self._app(scope, *ends)
            await self._remember(exchange, 0)

    def _remembering(self, send: Send, exchange: Exchange) -> Send:
        async def forward(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._remember(exchange, message["status"])
            await send(message)

        return forward

    async def _remember(self, exchange: Exchange, status: int) -> None:
        """Stores the request's row, once, before its answer leaves: who has the answer finds the row."""
        if not exchange.logged:
            row = exchange.row(status)
            await asyncio.get_running_loop().run_in_executor(None, self._store.add_request, row)


def _measured(receive: Receive, exchange: Exchange) -> Receive:
    async def take() -> Message:
        message = await receive()
        exchange.bytes_wire += len(message.get("body", b""))
        return message

    return take


def _nothing() -> None:
    """Stands in where no server counts connections."""
