"""What a field of the configuration may hold: references to secrets, days, names, amounts, addresses."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mixpanel_http.secret_refs import FORMS, is_reference

# Names of options whose values are secrets, wherever they stand.
_SECRET_OPTION: Final = re.compile(
    r"(?i)(secret|passw|token|account_?key|private_?key|api_?key|access_?key(?!_?id)|authorization|connection_?string)"
).search
# gcsfs calls `token` what mostly is no secret: one of these words, or the path of a file.
_GOOGLE_TOKENS: Final = frozenset({"anon", "browser", "cache", "cloud", "google_default"})
CREDENTIALS_IN_URL: Final = re.compile(r"[A-Za-z0-9+.-]*://[^/\s]*@").match
_BY_REFERENCE: Final = f"a secret is given by reference only: {FORMS}"


def _reference(value: object) -> object:
    """Refuses a secret that is given as such, without repeating it."""
    if not is_reference(value):
        raise ValueError(_BY_REFERENCE)
    return value


def _day(value: object) -> object:
    """Refuses everything but a day that exists; a month or a time of day is not meant by chance."""
    try:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            return dt.date.fromisoformat(value)
    except ValueError:
        pass
    raise ValueError("must be a day that exists, like 2024-01-31")


def _number_as_text(value: object) -> object:
    """Takes a number for its digits: an id of digits alone needs no quotes."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Reference = Annotated[str, BeforeValidator(_reference)]
Day = Annotated[dt.date, BeforeValidator(_day)]
Name = Annotated[str, BeforeValidator(_number_as_text)]


_PERCENTAGE: Final = re.compile(r"(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?)%").fullmatch


def _amount(value: object) -> object:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not is_count and not (isinstance(value, str) and _PERCENTAGE(value)):
        raise ValueError("must be a count like 100 or a percentage like 1%")
    return value


Amount = Annotated[int | str, BeforeValidator(_amount)]


class Section(BaseModel):
    """A part of the configuration with keys of its own; a key that it does not know is an error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        populate_by_name=False,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )


class DatesConfig(Section):
    """A range of partitions, both ends included."""

    from_: Day = Field(alias="from", description="first date, YYYY-MM-DD")
    to: Day = Field(description="last date, YYYY-MM-DD")

    @model_validator(mode="after")
    def _in_order(self) -> DatesConfig:
        if self.to < self.from_:
            raise ValueError(f"'to' ({self.to}) is before 'from' ({self.from_})")
        return self


def check_source_uri(uri: str) -> None:
    """Raises a ValueError that says why a source cannot be read from there."""
    scheme, found, path = uri.partition("://")
    if found and scheme not in ("s3", "gs", "file"):
        raise ValueError(f"{scheme}:// is not supported; use s3://, gs://, file:// or a path")
    if CREDENTIALS_IN_URL(uri):
        raise ValueError("holds credentials; give them in storage_options, by reference")
    path = path if found else uri
    if not path.strip("/ "):
        raise ValueError("names no file")
    if path.endswith("/") or (scheme in ("s3", "gs") and found and "/" not in path):
        raise ValueError("names a folder; end it with a pattern, like /*.json or /** for all that is below")
    if uri.count("{date}") > 1:
        raise ValueError("{date} may stand in it once")


def without_plain_secrets(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options, or raises a ValueError that names the one that holds a secret in plain."""
    for key in secret_options(options):
        raise ValueError(f"{key}: {_BY_REFERENCE}")
    return options


def secret_options(options: object, path: str = "") -> Iterator[str]:
    """Yields the paths of options that by their name or form hold a secret, and hold it in plain."""
    if isinstance(options, Mapping):
        for key, value in options.items():
            inner = f"{path}.{key}" if path else str(key)
            if _is_plain_secret(str(key), value):
                yield inner
            else:
                yield from secret_options(value, inner)
    elif isinstance(options, list):
        for index, value in enumerate(options):
            yield from secret_options(value, f"{path}.{index}")
    elif isinstance(options, str) and CREDENTIALS_IN_URL(options):
        yield path


StorageOptions = Annotated[dict[str, Any], AfterValidator(without_plain_secrets)]


def _is_plain_secret(key: str, value: object) -> bool:
    if not _SECRET_OPTION(key) or value is None or isinstance(value, (bool, Mapping)) or is_reference(value):
        return False
    if key == "token" and isinstance(value, str):
        return value not in _GOOGLE_TOKENS and "/" not in value and not value.endswith(".json")
    return True
