"""Runs work beside the main thread, for as long as something else lasts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def running_beside(work: Callable[[threading.Event], object], name: str) -> Iterator[None]:
    """Runs work in a thread while the body runs; then tells it by the event to end, and waits until it has.

    Args:
        work: called with the event.
        name: of the thread.
    """
    ended = threading.Event()
    thread = threading.Thread(target=work, args=(ended,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
