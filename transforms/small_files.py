"""Fetches small files some ahead: from a store each takes a round trip, however small it is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from transforms.elements import FilePart
from transforms.storage import scheme_of

FILES_AHEAD: Final = 16
BYTES_AHEAD: Final = 16 << 20
Fetched = TypeVar("Fetched")


def fetched_ahead(
    parts: Sequence[FilePart], fetch: Callable[[FilePart], Fetched], is_small: Callable[[FilePart], bool]
) -> Iterator[tuple[FilePart, Callable[[], Fetched]]]:
    """Yields each part, in order, with what returns or raises what fetching it did.

    Files on disk and files that are not small are fetched when they are asked for.

    Args:
        parts: of one segment.
        fetch: fetches a part as a whole.
        is_small: returns whether a part may be fetched before its turn.
    """
    if all(scheme_of(part.uri) == "file" for part in parts):
        yield from ((part, partial(fetch, part)) for part in parts)
        return
    waiting: deque[tuple[FilePart, Future[Fetched] | None]] = deque()
    pool = ThreadPoolExecutor(FILES_AHEAD, "fetch-ahead")
    try:
        for part in parts:
            early = is_small(part) and scheme_of(part.uri) != "file"
            waiting.append((part, pool.submit(fetch, part) if early else None))
            while not early or len(waiting) >= FILES_AHEAD or sum(p.size for p, _ in waiting) >= BYTES_AHEAD:
                yield _next(waiting, fetch)
                if not waiting:
                    break
        while waiting:
            yield _next(waiting, fetch)
    finally:
        pool.shutdown(cancel_futures=True)


def _next(
    waiting: deque[tuple[FilePart, Future[Fetched] | None]], fetch: Callable[[FilePart], Fetched]
) -> tuple[FilePart, Callable[[], Fetched]]:
    part, future = waiting.popleft()
    return part, future.result if future is not None else partial(fetch, part)
