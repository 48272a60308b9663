"""The configuration of a run: one YAML file, checked as a whole, all errors told at once."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from mixpanel_http import limits
from mixpanel_http.client import HOSTS, Destination, EndpointRefused, check_endpoint
from mixpanel_http.delivery import RetryPolicy
from mixpanel_http.event_rules import EventRules
from mixpanel_http.insert_ids import InsertIdPolicy
from mixpanel_http.secret_refs import SecretRef, is_reference

MAX_CONFIG_BYTES: Final = 1_000_000
MAX_ALIASES: Final = 50  # a file of nested aliases could otherwise expand without end
RUN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}").fullmatch
# Names of storage options whose values are secrets, wherever they stand in the options.
_SECRET_OPTION: Final = re.compile(
    r"(?i)(secret|password|passwd|session_?token|sas_?token|account_?key|private_?key)"
).search


class ConfigError(ValueError):
    """What is wrong with a configuration: one line an error, each with its path in the file."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = list(errors)


def _reference(value: object) -> object:
    """Refuses a secret that is given as such, without repeating it."""
    if not is_reference(value):
        raise ValueError("a secret is given by reference only: env:NAME or file:PATH")
    return value


Reference = Annotated[str, BeforeValidator(_reference)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False, hide_input_in_errors=True)


class DatesConfig(_Section):
    """A range of partitions, both ends included."""

    from_: dt.date = Field(alias="from", description="first date, YYYY-MM-DD")
    to: dt.date = Field(description="last date, YYYY-MM-DD")

    @model_validator(mode="after")
    def _in_order(self) -> DatesConfig:
        if self.to < self.from_:
            raise ValueError(f"'to' ({self.to}) is before 'from' ({self.from_})")
        return self


class SourceConfig(_Section):
    """What is read."""

    uri: str | list[str] = Field(
        description="`s3://`, `gs://`, `file://` or a path, or a list; with `*`, `?`, `[…]`, `**`, `{date}`"
    )
    dates: DatesConfig | None = Field(None, description="only these partitions; needs `{date}` in the uri")
    order: Literal["newest_first", "oldest_first"] = Field(
        "newest_first", description="which partition is sent first"
    )
    format: Literal["ndjson"] = Field(
        "ndjson", description="one JSON record a line; compression is told by content"
    )
    storage_options: dict[str, Any] = Field(
        default_factory=dict,
        description="handed to fsspec: `endpoint_url`, `anon`, `project`, …; secrets by reference",
    )

    @property
    def uris(self) -> list[str]:
        """The URIs, also where there is one."""
        return [self.uri] if isinstance(self.uri, str) else list(self.uri)

    @field_validator("uri")
    @classmethod
    def _usable(cls, value: str | list[str]) -> str | list[str]:
        for uri in [value] if isinstance(value, str) else value:
            scheme = uri.split("://", 1)[0] if "://" in uri else "file"
            if scheme not in ("s3", "gs", "file"):
                raise ValueError(f"{scheme}:// is not supported; use s3://, gs://, file:// or a path")
            if not uri.split("://", 1)[-1].strip("/"):
                raise ValueError("names no file")
            if uri.count("{date}") > 1:
                raise ValueError("{date} may stand in it once")
        if not value:
            raise ValueError("names no file")
        return value

    @field_validator("storage_options")
    @classmethod
    def _by_reference(cls, value: dict[str, Any]) -> dict[str, Any]:
        return _without_plain_secrets(value)

    @model_validator(mode="after")
    def _dates_need_a_place(self) -> SourceConfig:
        if self.dates and not all("{date}" in uri for uri in self.uris):
            raise ValueError("dates needs {date} in every uri")
        return self


class InsertIdConfig(_Section):
    """How records without a valid `$insert_id` get one."""

    mode: Literal["content", "line", "fields"] = Field("content", description="what the id is made from")
    fields: list[str] = Field(default_factory=list, description="property names, for `mode: fields`")
    identical_rows: Literal["merge", "keep"] = Field(
        "merge",
        description="`merge`: identical rows are one event; `keep`: file and offset make each its own",
    )

    @model_validator(mode="after")
    def _consistent(self) -> InsertIdConfig:
        InsertIdPolicy(self.mode, tuple(self.fields), self.identical_rows)
        return self


class RecordsConfig(_Section):
    """What the records are and how they are made fit."""

    kind: Literal["events"] = Field("events", description="what is imported")
    insert_id: InsertIdConfig = Field(default_factory=InsertIdConfig, description="see below")
    default_ip: Literal[0] | None = Field(
        0,
        description="`ip` for events without one, else they are located where this runs; `null`: leave them",
    )


class ServiceAccountConfig(_Section):
    """A service account with the role of an owner or admin in the project."""

    username: Reference = Field(description="reference to the user name")
    secret: Reference = Field(description="reference to the secret")


class CredentialsConfig(_Section):
    """Who sends: a project token, or a service account."""

    project_token: Reference | None = Field(None, description="reference to the project's token")
    service_account: ServiceAccountConfig | None = Field(
        None, description="instead of a token; needs `project_id`"
    )
    project_id: str | None = Field(None, description="the project's number, as text")

    @model_validator(mode="after")
    def _one_of_them(self) -> CredentialsConfig:
        if (self.project_token is None) == (self.service_account is None):
            raise ValueError("give either project_token or service_account")
        if self.service_account is not None and not self.project_id:
            raise ValueError("service_account needs project_id")
        return self


class DestinationConfig(_Section):
    """Where the records go."""

    emulator: bool = Field(False, description="start a local Mixpanel for this run and import into it")
    region: Literal["us", "eu", "in"] = Field("us", description="where the project's data lives")
    endpoint: str | None = Field(None, description="another host instead of the region's")
    allow_any_endpoint: bool = Field(
        False, description="allow a host that is neither Mixpanel's nor this machine"
    )
    identity: Literal["simplified", "original"] = Field(
        "simplified", description="the project's identity model (project settings, identity merge)"
    )
    credentials: CredentialsConfig | None = Field(None, description="see below; not needed with `emulator`")

    @model_validator(mode="after")
    def _consistent(self) -> DestinationConfig:
        if self.emulator and self.endpoint:
            raise ValueError("emulator and endpoint exclude each other")
        if not self.emulator and self.credentials is None:
            raise ValueError("credentials are needed, unless emulator is true")
        return self

    @field_validator("endpoint")
    @classmethod
    def _looks_like_a_host(cls, value: str | None) -> str | None:
        if value is not None:
            check_endpoint(value, allow_any=True)
        return value

    def to_destination(self, emulator_url: str | None = None) -> Destination:
        """Returns where to send.

        Raises:
            EndpointRefused: if records must not go there.
        """
        if emulator_url is not None:
            return Destination(emulator_url, SecretRef("env:BACKFILL_EMULATOR_TOKEN"))
        assert self.credentials is not None
        base = check_endpoint(self.endpoint or HOSTS[self.region], self.allow_any_endpoint)
        account = self.credentials.service_account
        return Destination(
            base,
            SecretRef(self.credentials.project_token) if self.credentials.project_token else None,
            SecretRef(account.username) if account else None,
            SecretRef(account.secret) if account else None,
            self.credentials.project_id,
        )


class RetryConfig(_Section):
    """How patiently a request is repeated."""

    first_wait_seconds: float = Field(
        2.0, gt=0, description="the longest first wait; the bound doubles with each try"
    )
    longest_wait_seconds: float = Field(
        60.0, gt=0, description="no wait is longer, unless the service asks for it"
    )
    give_up_after_seconds: float = Field(
        900.0, gt=0, description="then the request is undelivered and the run goes on"
    )


class LimitsConfig(_Section):
    """How much at once and how fast."""

    records_per_request: int = Field(
        limits.MAX_RECORDS_PER_REQUEST, ge=1, le=limits.MAX_RECORDS_PER_REQUEST, description="records"
    )
    bytes_per_request: int = Field(
        9_800_000,
        ge=10_000,
        le=limits.MAX_REQUEST_BYTES,
        description="bytes, uncompressed; a 413 teaches a lower one",
    )
    events_per_second: float = Field(
        limits.EVENTS_PER_SECOND, gt=0, description="events a second, over the whole run"
    )
    bytes_per_minute: float = Field(limits.BYTES_PER_MINUTE, gt=0, description="uncompressed bytes a minute")
    in_flight: int = Field(16, ge=1, le=256, description="requests at once, over the whole run")
    retry: RetryConfig = Field(default_factory=RetryConfig, description="see below")


def _amount(value: object) -> object:
    if isinstance(value, bool) or not (
        (isinstance(value, int) and value >= 0)
        or (isinstance(value, str) and re.fullmatch(r"(100|[0-9]{1,2})(\.[0-9]+)?%", value))
    ):
        raise ValueError('must be a count like 100 or a percentage like "1%"')
    return value


Amount = Annotated[int | str, BeforeValidator(_amount)]


class RunConfig(_Section):
    """The run itself."""

    id: str | None = Field(None, description="the run's name; made from the time if not given")
    state: str = Field(
        ".backfill", description="folder for ledger, dead letters, reports: a path, `s3://` or `gs://`"
    )
    storage_options: dict[str, Any] = Field(
        default_factory=dict, description="handed to fsspec for the state folder; secrets by reference"
    )
    allow_dead_letters: Amount = Field(
        0, description='count or "1%" of the records read; above it the exit code is 6'
    )
    max_errors: Amount | None = Field(
        None, description='count or "1%": above it the run stops with exit code 8'
    )

    @field_validator("id")
    @classmethod
    def _plain_name(cls, value: str | None) -> str | None:
        if value is not None and not RUN_ID(value):
            raise ValueError(
                "must be 1 to 100 letters, digits, dots, underscores or hyphens, the first no dot"
            )
        return value

    @field_validator("state")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        if "://" in value and value.split("://", 1)[0] not in ("s3", "gs", "file"):
            raise ValueError("must be a path, s3:// or gs://")
        if not value.strip():
            raise ValueError("names no folder")
        return value

    @field_validator("storage_options")
    @classmethod
    def _by_reference(cls, value: dict[str, Any]) -> dict[str, Any]:
        return _without_plain_secrets(value)


class BeamConfig(_Section):
    """The engine."""

    runner: Literal["DirectRunner", "DataflowRunner", "PortableRunner", "FlinkRunner", "SparkRunner"] = Field(
        "DirectRunner", description="`DirectRunner` is Beam's in-process runner"
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Beam pipeline options, as Beam names them"
    )

    @field_validator("options")
    @classmethod
    def _no_secrets(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in _secret_options(value):
            raise ValueError(f"{key}: pipeline options are public; give secrets where workers resolve them")
        return value


class Config(_Section):
    """A run's configuration, as the YAML file has it."""

    source: SourceConfig
    records: RecordsConfig = Field(default_factory=RecordsConfig)
    destination: DestinationConfig
    limits: LimitsConfig = Field(default_factory=LimitsConfig)
    run: RunConfig = Field(default_factory=RunConfig)
    beam: BeamConfig = Field(default_factory=BeamConfig)

    @model_validator(mode="after")
    def _endpoint_allowed(self) -> Config:
        destination = self.destination
        if destination.endpoint is not None:
            check_endpoint(destination.endpoint, destination.allow_any_endpoint)
        return self

    def event_rules(self) -> EventRules:
        """Returns the rules for this run's events."""
        policy = self.records.insert_id
        return EventRules(
            InsertIdPolicy(policy.mode, tuple(policy.fields), policy.identical_rows),
            self.destination.identity,
            self.records.default_ip is not None,
        )

    def retry_policy(self) -> RetryPolicy:
        """Returns how this run repeats requests."""
        retry = self.limits.retry
        return RetryPolicy(retry.first_wait_seconds, retry.longest_wait_seconds, retry.give_up_after_seconds)


def load_config(path: str, overrides: Sequence[str] = ()) -> Config:
    """Returns the configuration in a file, with `key.path=value` overrides applied.

    Raises:
        ConfigError: with every error there is, each with its path.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    if len(raw) > MAX_CONFIG_BYTES:
        raise ConfigError([f"{path}: a configuration has at most {MAX_CONFIG_BYTES:,} bytes"])
    values = _parse_yaml(path, raw)
    errors = [problem for override in overrides if (problem := _apply(values, override))]
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError([*errors, *_lines(error)]) from None
    if errors:
        raise ConfigError(errors)
    return config


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which otherwise lets the last of two equal keys win in silence."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.value in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key.value!r} stands twice", key.start_mark
            )
        seen.add(key.value)
    return dict(loader.construct_pairs(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _parse_yaml(path: str, raw: bytes) -> dict[str, Any]:
    try:
        text = raw.decode()
        if sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)) > MAX_ALIASES:
            raise ConfigError([f"{path}: more than {MAX_ALIASES} YAML aliases"])
        values = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or type(error).__name__
        raise ConfigError([f"{path}{place}: no valid YAML: {problem}"]) from None
    if not isinstance(values, dict):
        raise ConfigError([f"{path}: must hold sections like 'source:' and 'destination:'"])
    return values


def _apply(values: dict[str, Any], override: str) -> str | None:
    """Sets one value; returns what is wrong with the override, if anything is."""
    key, found, text = override.partition("=")
    names = key.split(".")
    if not found or not all(names):
        return f"--set {key}: must look like key.path=value"
    try:
        value = yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        return f"--set {key}: the value is no valid YAML"
    section = values
    for name in names[:-1]:
        inner = section.setdefault(name, {})
        if not isinstance(inner, dict):
            return f"--set {key}: {name} has no keys"
        section = inner
    section[names[-1]] = value
    return None


def _lines(error: ValidationError) -> Iterator[str]:
    """Yields an error a line, with its path and without the value, which may be a secret."""
    for detail in error.errors(include_url=False, include_input=False, include_context=False):
        path = ".".join(str(part) for part in detail["loc"] if not _is_union_arm(part)) or "configuration"
        message = detail["msg"].removeprefix("Value error, ")
        if detail["type"] == "extra_forbidden":
            message = "unknown key"
        if detail["type"] == "missing":
            message = "is required"
        yield f"{path}: {message}"


def _is_union_arm(part: str | int) -> bool:
    return isinstance(part, str) and (part in ("str", "int") or "[" in part)


def _without_plain_secrets(options: dict[str, Any]) -> dict[str, Any]:
    for key in _secret_options(options):
        raise ValueError(f"{key}: a secret is given by reference only: env:NAME or file:PATH")
    return options


def _secret_options(options: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields the paths of options that by their name hold a secret, and hold it in plain."""
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _secret_options(value, f"{prefix}{key}.")
        elif _SECRET_OPTION(str(key)) and value is not None and not is_reference(value):
            yield f"{prefix}{key}"


__all__ = ["Config", "ConfigError", "EndpointRefused", "load_config"]
