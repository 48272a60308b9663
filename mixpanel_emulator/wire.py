"""Between ASGI and the endpoints: bounded bodies, work beside the event loop, answers."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from mixpanel_emulator.answers import Answer
from mixpanel_emulator.bodies import BodyTooLargeError

FORM = "application/x-www-form-urlencoded"
FORM_EXPANSION = 3  # percent-encoding writes a byte as three
DRAINED_BYTES = 256 * 1024 * 1024  # a body over the limit is read up to here, so that its sender reads 413
WHOLE_DIGITS = 18  # fits SQLite's integers
WORKERS = 2  # more would only wait for the interpreter's lock; inflating and SQLite work outside of it

Result = TypeVar("Result")
_workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="intake")
_queries = ThreadPoolExecutor(WORKERS, thread_name_prefix="query")


async def read_wire(request: Request, limit: int) -> bytes:
    """Returns the body as it came; one that is over the limit even as it came raises `BodyTooLargeError`."""
    most = limit * FORM_EXPANSION if is_form(request) else limit + limit // 1000 + 1024
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= most:
            parts.append(part)
        elif size > most + DRAINED_BYTES:
            break
        else:
            parts.clear()
    if size > most:
        raise BodyTooLargeError
    return b"".join(parts)


def encoding_of(request: Request) -> str:
    """Returns how the body is compressed, in lower case, or nothing."""
    return request.headers.get("content-encoding", "").strip().lower()


def is_form(request: Request) -> bool:
    """Returns whether the body is an urlencoded form."""
    return request.headers.get("content-type", "").lower().startswith(FORM)


def is_on(request: Request, name: str) -> bool:
    """Returns whether a query parameter is given and not 0."""
    return request.query_params.get(name, "") not in ("", "0", "false")


def whole_number(given: Mapping[str, Any], name: str, default: int, most: int) -> int:
    """Returns a parameter as a whole number from 0 to `most`, or raises `ValueError` naming it."""
    text = str(given.get(name) or default)
    if not text.isdecimal() or len(text) > WHOLE_DIGITS or int(text) > most:
        raise ValueError(f"{name} must be a number from 0 to {most}")
    return int(text)


async def work(function: Callable[..., Result], *arguments: object) -> Result:
    """Returns what `function` returns, run on one of the few threads that take records in."""
    return await asyncio.get_running_loop().run_in_executor(_workers, function, *arguments)


async def query(function: Callable[..., Result], *arguments: object) -> Result:
    """Returns what `function` returns, run on one of the threads that read the store."""
    return await asyncio.get_running_loop().run_in_executor(_queries, function, *arguments)


def respond(answer: Answer) -> Response:
    """Returns an answer as a response."""
    headers = {"content-type": answer.media_type, **answer.headers}
    return Response(answer.body, answer.status, headers)
