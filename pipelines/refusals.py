"""What ends a command before it does anything, and the exit code by which a script tells it."""

from __future__ import annotations

from typing import Final

from mixpanel_http.destinations import EndpointRefused
from mixpanel_http.secret_refs import SecretUnavailable
from pipelines.config_reading import ConfigError
from pipelines.following import EngineRefused
from pipelines.lease import RunBusy
from pipelines.manifest import ManifestUnusable
from pipelines.plan import NothingMatched, SourceUnreadable
from pipelines.report import ExitCode
from pipelines.resuming import RunMismatch
from pipelines.state import StateUnusable
from pipelines.streams import say
from transforms.storage_options import StorageOptionsWrong

_CODES: Final[dict[type[Exception], ExitCode]] = {
    ConfigError: ExitCode.USAGE,
    RunMismatch: ExitCode.USAGE,
    RunBusy: ExitCode.USAGE,
    ManifestUnusable: ExitCode.USAGE,
    SecretUnavailable: ExitCode.USAGE,
    StateUnusable: ExitCode.USAGE,
    EndpointRefused: ExitCode.USAGE,
    StorageOptionsWrong: ExitCode.USAGE,
    NothingMatched: ExitCode.NO_INPUT,
    SourceUnreadable: ExitCode.DAMAGED_INPUT,
    EngineRefused: ExitCode.REFUSED,
}
REFUSALS: Final = tuple(_CODES)
"""What a command catches; its message says what was expected, what came, and what to do."""


def refuse(message: str, code: int) -> int:
    """Says on stderr why nothing more is done, each line as an error; returns the exit code."""
    for line in message.splitlines():
        say(f"error: {line}")
    return int(code)


def refuse_for(error: Exception) -> int:
    """Says on stderr what one of `REFUSALS` says; returns its exit code."""
    return refuse(str(error), next(code for kind, code in _CODES.items() if isinstance(error, kind)))
