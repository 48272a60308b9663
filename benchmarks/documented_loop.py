"""The loop that Mixpanel's documentation recommends for its rate limit.

10 to 20 clients send 2,000 events at a time as fast as they can; after a 429 they wait 2 s, doubling up to
60 s, plus 1 to 5 s of chance (https://docs.mixpanel.com/reference/import-events, section on rate limits).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FIRST_WAIT_S: Final = 2.0
LONGEST_WAIT_S: Final = 60.0
JITTER_S: Final = (1.0, 5.0)
CLIENTS: Final = 16


def send_until(
    ends: float,
    send: Callable[[], int],
    clock: Callable[[], float],
    wait: Callable[[float], object],
    uniform: Callable[[float, float], float],
    waits: list[float],
) -> None:
    """Is one client of the loop until a time, and notes how long each request took from first to last.

    Args:
        ends: when it ends.
        send: sends a request and returns the status.
        clock: seconds.
        wait: waits so many.
        uniform: a random number between two.
        waits: where it notes.
    """
    while clock() < ends:
        begun, wait_s = clock(), FIRST_WAIT_S
        while send() == 429 and clock() < ends:
            wait(wait_s + uniform(*JITTER_S))
            wait_s = min(LONGEST_WAIT_S, 2 * wait_s)
        waits.append(clock() - begun)
