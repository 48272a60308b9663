"""Fetches small files in batches; from a store some ahead, as each of them takes a round trip."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import Final

from transforms.elements import FilePart
from transforms.pinned_files import Fetched
from transforms.storage import scheme_of

FILES_AHEAD: Final = 16
BYTES_AHEAD: Final = 16 << 20
BATCH_BYTES: Final = 1 << 20
Fetch = Callable[[Sequence[FilePart]], list[Fetched]]
Batch = tuple[int, list[Fetched] | None]


def batches(parts: Sequence[FilePart], fetch: Fetch, is_small: Callable[[FilePart], bool]) -> Iterator[Batch]:
    """Yields the index of each part that is not small, with None, and small ones in batches, in order.

    Of a batch it yields the index of the first, and what is in each file or why it could not be read.

    Args:
        parts: of one segment.
        fetch: reads parts of one file system as a whole.
        is_small: returns whether a part may be read as a whole.
    """
    first = 0
    for (small, scheme), run in groupby(parts, lambda part: (is_small(part), scheme_of(part.uri))):
        group = list(run)
        if small:
            read = _from_disk if scheme == "file" else _from_store
            start = first
            for contents in read(group, fetch):
                yield start, contents
                start += len(contents)
        else:
            yield from ((index, None) for index in range(first, first + len(group)))
        first += len(group)


def _from_disk(parts: Sequence[FilePart], fetch: Fetch) -> Iterator[list[Fetched]]:
    start = size = 0
    for index, part in enumerate(parts):
        size += part.size
        if size >= BATCH_BYTES:
            yield fetch(parts[start : index + 1])
            start, size = index + 1, 0
    if start < len(parts):
        yield fetch(parts[start:])


def _from_store(parts: Sequence[FilePart], fetch: Fetch) -> Iterator[list[Fetched]]:
    """Yields batches of files of which some are fetched while what came before is worked on."""
    waiting: deque[tuple[FilePart, Future[list[Fetched]]]] = deque()
    pool = ThreadPoolExecutor(FILES_AHEAD, "fetch-ahead")
    try:
        for part in parts:
            waiting.append((part, pool.submit(fetch, (part,))))
            while len(waiting) >= FILES_AHEAD or sum(each.size for each, _ in waiting) >= BYTES_AHEAD:
                yield _next(waiting)
        while waiting:
            yield _next(waiting)
    finally:
        pool.shutdown(cancel_futures=True)


def _next(waiting: deque[tuple[FilePart, Future[list[Fetched]]]]) -> list[Fetched]:
    """Returns the first file, when it is there, and those behind it that are there by then."""
    contents = waiting.popleft()[1].result()
    while waiting and waiting[0][1].done():
        contents += waiting.popleft()[1].result()
    return contents
