"""References to secrets, in the environment, in files, in secret managers. Only they are kept and shown."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mixpanel_http.secret_managers import NoSecret, read_aws_secret, read_gcp_secret

_REFERENCE: Final = re.compile(
    r"env:[A-Za-z_][A-Za-z0-9_]*"
    r"|file:.+"
    r"|gcp-secret:projects/[A-Za-z0-9:._-]+/secrets/[A-Za-z0-9_-]+/versions/[A-Za-z0-9_-]+"
    r"|aws-secret:[A-Za-z0-9/_+=.@:!-]+(#[^#\s]+)?"
).fullmatch
FORMS: Final = "env:NAME, file:PATH, gcp-secret:NAME or aws-secret:NAME"


class SecretUnavailable(RuntimeError):
    """A reference leads to no secret here; the message names the reference, never a value."""


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Where a secret is: in a variable, a file, or a secret manager (docs/configuration.md)."""

    reference: str

    def __post_init__(self) -> None:
        if not is_reference(self.reference):
            raise ValueError(f"a secret is given by reference only: {FORMS}")

    def resolve(self) -> str:
        """Returns the secret.

        Raises:
            SecretUnavailable: if it cannot be read there, or is empty.
        """
        kind, _, name = self.reference.partition(":")
        try:
            value = _READERS[kind](name)
        except NoSecret as error:
            raise SecretUnavailable(f"{self.reference}: {error}") from None
        if not value:
            what = "environment variable is not set" if kind == "env" else "file or secret is empty"
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


def _read_variable(name: str) -> str:
    return os.environ.get(name, "")


def _read_file(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretUnavailable(f"file:{name}: {type(error).__name__}") from None


_READERS: Final[dict[str, Callable[[str], str]]] = {
    "env": _read_variable,
    "file": _read_file,
    "gcp-secret": read_gcp_secret,
    "aws-secret": read_aws_secret,
}
