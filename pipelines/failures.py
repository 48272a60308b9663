"""Tells an unexpected failure without telling anything of a record: its kind and its place."""

from __future__ import annotations

import re
import traceback
from typing import Final

from pipelines.versions import PACKAGES

_OWN: Final = (
    *("StateUnusable", "SecretUnavailable", "EndpointRefused", "EmulatorFailed"),
    *("EngineRefused", "WorkersFailed", "WorkerRefused", "OrderedUnusable"),
)
_LAST_LINE: Final = re.compile(
    r"^(?:[\w.]+\.)?(\w+(?:Error|Exception|Stopped|Unusable|Unavailable|Refused|Failed))(?:: (.*))?$"
)
_FRAME: Final = re.compile(r'^\s*File "(?:.*/)?([\w.-]+/[\w.-]+)", line (\d+), in (\S+)')


def describe_failure(error: BaseException) -> str:
    """Returns what is known of a failure: its kind, its message if it is ours, its place in our code.

    The message of any other error can hold a record, and stays out.
    """
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    kind, message = _kind(text, error)
    frames = [f"{m[1]}:{m[2]} in {m[3]}" for line in text.splitlines() if (m := _FRAME.match(line))]
    own = [frame for frame in frames if frame.partition("/")[0] in (*PACKAGES, "mixpanel_emulator")]
    where = f" (at {own[-1]})" if own and not message else ""
    return f"{kind}: {message}" if message else f"{kind}{where}"


def _kind(text: str, error: BaseException) -> tuple[str, str]:
    for line in text.splitlines():
        match = _LAST_LINE.match(line.split(" [while running")[0])
        if match and match[1] in _OWN:
            return match[1], match[2] or ""
    first = next((m[1] for line in text.splitlines() if (m := _LAST_LINE.match(line))), type(error).__name__)
    return first, ""
