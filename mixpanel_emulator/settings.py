"""What can be chosen about the emulated project: variants where sources disagree, and sizes of limits."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Literal

import msgspec

MIB = 1024 * 1024


class SettingsError(ValueError):
    """A setting that does not exist, or a value that does not fit it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The emulated project; each default is the variant with the best source (named beside it)."""

    # IDM: default for organisations since April 2024
    identity: Literal["simplified", "original"] = "simplified"
    identity_verbs: Literal["refuse_batch", "refuse_record", "ignore"] = "refuse_batch"  # AK-PROBE vs IDMIG
    # AK-VAL (observed) vs IMP (hashed from the IP)
    missing_distinct_id: Literal["refuse", "from_ip"] = "refuse"
    banned_ignore_case: bool = True  # AK-REPLAY: ingestion lower-cases before comparing; IMP is silent
    banned_extra: tuple[str, ...] = ()  # AK has one more entry, lmy47d, than the official list
    # OAI-ING, E400, I-U40 vs the example on IMP
    failed_id_key: Literal["insert_id", "$insert_id"] = "insert_id"
    failures_as_strings: Literal["never", "identity", "always"] = "identity"  # AK-PROBE
    track_old_events: Literal["silent", "error"] = "silent"  # EHIST vs I-N190
    engage_gzip: bool = False  # PSET: not supported; JAVA sends it

    max_body_bytes: int = 10 * MIB  # IMP, E413: 10MB; the 413 sample and older texts: 2097152
    max_events: int = 2000  # IMP
    max_event_bytes: int = MIB  # IMP: under 1MB of uncompressed JSON
    max_properties: int = 254  # IMP, TRK: fewer than 255; EVP: up to 255
    max_depth: int = 3  # IMP; where counting starts is not said, here the value of a property is level 1
    max_updates: int = 2000  # UPL, GRL
    max_profile_properties: int = 2000  # UPL
    max_table_bytes: int = 100 * MIB  # LTAPI

    rate_events: int = 1_800_000  # RATE: 30k events/s over a rolling minute; 0 is no limit
    rate_bytes: int = 2_000_000_000  # RATE: 2GB of uncompressed JSON per minute; 0 is no limit
    rate_window_s: float = 60.0  # RATE: rolling minute
    retry_after: Literal["none", "seconds", "date"] = "none"  # no source documents Retry-After on ingestion
    export_per_hour: int = 60  # OAI-EXP; 0 is no limit
    query_per_hour: int = 60  # RATE; 0 is no limit
    table_calls_per_day: int = 100  # LTAPI; 0 is no limit

    tokens: tuple[str, ...] = ()  # project tokens and secrets accepted; empty: any that is not empty
    service_accounts: tuple[str, ...] = ()  # user:secret pairs accepted; empty: any pair with a secret
    lookup_tables: tuple[str, ...] = ()  # ids that exist; empty: any id does
    source_property: str = "$source"  # property by which the oracle counts per source


def settings_help() -> str:
    """Returns one line a setting with its default, for the command line's manual."""
    return "\n".join(f"  {field.name}={_shown(field.default)}" for field in fields(Settings))


def parse_settings(pairs: Iterable[str]) -> Settings:
    """Returns the settings that `key=value` texts describe.

    >>> parse_settings(["identity=original", "tokens=a,b"]).tokens
    ('a', 'b')
    """
    return make_settings(dict(_split(pair) for pair in pairs))


def make_settings(values: Mapping[str, str]) -> Settings:
    """Returns the settings that texts describe, or raises `SettingsError` naming what is wrong."""
    lists = {field.name for field in fields(Settings) if field.default == ()}
    unknown = values.keys() - {field.name for field in fields(Settings)}
    if unknown:
        raise SettingsError(f"no such setting: {', '.join(sorted(unknown))}")
    shaped = {key: _items(value) if key in lists else value for key, value in values.items()}
    try:
        return msgspec.convert(shaped, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(str(error)) from error


def _split(pair: str) -> tuple[str, str]:
    key, equals, value = pair.partition("=")
    if not equals:
        raise SettingsError(f"expected key=value, got {pair!r}")
    return key.strip(), value.strip()


def _items(text: str) -> list[str]:
    return [item for item in text.split(",") if item]


def _shown(default: object) -> str:
    return str(default) if default != () else "(a list with commas)"
