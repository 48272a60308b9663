"""Carrying faults out: delays, made-up answers, cut answers, and connections that are reset."""

import asyncio
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mixpanel_emulator.faults import Do, Fault

# By this name the server puts a connection's transport into the ASGI scope.
TRANSPORT = "mixpanel_emulator.transport"
LINGER_RESET = struct.pack("ii", 1, 0)  # closing with a linger of 0 s sends RST instead of FIN
HTML_PAGE = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center><hr></body></html>\n"


class _Answer(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


async def strike(
    struck: Sequence[Fault],
    record: Callable[[Fault], None],
    app: ASGIApp,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Answers a request as its faults say: every delay, then the first that does more."""
    for fault in struck:
        await asyncio.sleep(fault.script.do.delay_ms / 1000)
        if _only_delays(fault.script.do):
            record(fault)
    last = next((fault for fault in struck if not _only_delays(fault.script.do)), None)
    if last is None:
        await app(scope, receive, send)
    elif await _carry_out(last.script.do, app, scope, receive, send):
        record(last)


def _only_delays(do: Do) -> bool:
    return do == Do(delay_ms=do.delay_ms)


async def _carry_out(do: Do, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> bool:
    """Returns whether the fault really happened."""
    if do.terminated_early:
        scope["state"]["exchange"].end_early = True
        await app(scope, receive, send)
        return bool(scope["state"]["exchange"].ended_early)
    if do.reset == "before":
        await _drain(receive)
        await _reset(scope, receive)
        return True
    commits = do.commit if do.commit is not None else do.status is None
    answer = await _collect(app, scope, receive) if commits else await _drain(receive)
    answer = _altered(answer, do)
    await asyncio.sleep(do.delay_after_ms / 1000)
    if do.reset == "after":
        await _reset(scope, receive)
    elif do.cut_at is not None:
        await _write_part(scope, receive, _on_the_wire(answer)[: do.cut_at])
    else:
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})
    return True


async def _drain(receive: Receive) -> _Answer:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return _Answer(200, [(b"content-type", b"application/json")], b"")


async def _collect(app: ASGIApp, scope: Scope, receive: Receive) -> _Answer:
    parts: list[bytes] = []
    started: list[Message] = []

    async def keep(message: Message) -> None:
        if message["type"] == "http.response.start":
            started.append(message)
        parts.append(message.get("body", b""))

    await app(scope, receive, keep)
    return _Answer(started[0]["status"], list(started[0]["headers"]), b"".join(parts))


def _altered(answer: _Answer, do: Do) -> _Answer:
    status = do.status or answer.status
    body, media_type = answer.body, b""
    if do.html:
        body, media_type = HTML_PAGE.format(f"{status} {_phrase(status)}").encode(), b"text/html"
    if do.body is not None:
        body = do.body.encode()
    headers = {name: value for name, value in answer.headers if name != b"content-length"}
    if media_type:
        headers[b"content-type"] = media_type
    if do.retry_after is not None:
        headers[b"retry-after"] = _retry_after(do).encode()
    headers |= {name.lower().encode("latin-1"): value.encode("latin-1") for name, value in do.headers.items()}
    headers.setdefault(b"content-length", str(len(body)).encode())
    return _Answer(status, list(headers.items()), body)


def _retry_after(do: Do) -> str:
    if do.retry_after == "http-date":
        return formatdate(time.time() + do.retry_after_s, usegmt=True)
    return str(do.retry_after)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _on_the_wire(answer: _Answer) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} {_phrase(answer.status)}".encode()]
    lines += [name + b": " + value for name, value in answer.headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + answer.body


async def _write_part(scope: Scope, receive: Receive, part: bytes) -> None:
    transport: asyncio.Transport = scope["extensions"][TRANSPORT]
    transport.write(part)
    transport.close()
    await _until_gone(receive)


async def _reset(scope: Scope, receive: Receive) -> None:
    transport: asyncio.Transport = scope["extensions"][TRANSPORT]
    # uvloop's socket object cannot set options; a duplicate descriptor of the same connection can.
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    transport.abort()
    await _until_gone(receive)


async def _until_gone(receive: Receive) -> None:
    """Waits until the server knows that the connection is gone; else it would answer by itself."""
    while (await receive())["type"] != "http.disconnect":
        pass
