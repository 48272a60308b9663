"""References to secrets: `env:NAME` and `file:PATH`. Only the reference is kept, pickled and shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_REFERENCE: Final = re.compile(r"(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)").fullmatch


class SecretUnavailable(RuntimeError):
    """A reference leads to no secret here; the message names the reference, never a value."""


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Where a secret is: `env:NAME` or `file:PATH`."""

    reference: str

    def __post_init__(self) -> None:
        if not is_reference(self.reference):
            raise ValueError("a secret is given by reference only: env:NAME or file:PATH")

    def resolve(self) -> str:
        """Returns the secret.

        Raises:
            SecretUnavailable: if the variable is unset or empty, or the file is unreadable or empty.
        """
        kind, _, name = self.reference.partition(":")
        value = os.environ.get(name, "") if kind == "env" else _read(name)
        if not value:
            what = "environment variable is not set" if kind == "env" else "file is empty"
            raise SecretUnavailable(f"{self.reference}: the {what}")
        if any(ord(c) < 32 for c in value):
            raise SecretUnavailable(
                f"{self.reference}: the secret has line breaks or control characters in it"
            )
        return value


def is_reference(value: object) -> bool:
    """Returns whether a value has the form of a reference.

    >>> is_reference("env:MIXPANEL_TOKEN"), is_reference("file:/run/secrets/token"), is_reference("3f1a9c")
    (True, True, False)
    """
    return isinstance(value, str) and _REFERENCE(value) is not None


def resolve_all(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options with each reference in them, at any depth, replaced by its secret.

    Raises:
        SecretUnavailable: if one cannot be resolved.
    """
    return {key: _resolve(value) for key, value in options.items()}


def _resolve(value: Any) -> Any:
    if isinstance(value, Mapping):
        return resolve_all(value)
    return SecretRef(value).resolve() if is_reference(value) else value


def _read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretUnavailable(f"file:{name}: {type(error).__name__}") from None
