"""The configuration of a run: one YAML file, checked as a whole, all errors told at once."""

from __future__ import annotations

import datetime as dt
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

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
MAX_ALIASES: Final = 20  # nested ones multiply: these few become some thousand values at most
RUN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}").fullmatch
# Names of options whose values are secrets, wherever they stand.
_SECRET_OPTION: Final = re.compile(
    r"(?i)(secret|passw|token|account_?key|private_?key|api_?key|access_?key(?!_?id)|authorization|connection_?string)"
).search
# gcsfs calls `token` what mostly is no secret: one of these words, or the path of a file.
_GOOGLE_TOKENS: Final = frozenset({"anon", "browser", "cache", "cloud", "google_default"})
_CREDENTIALS_IN_URL: Final = re.compile(r"[A-Za-z0-9+.-]*://[^/\s]*@").match
_BY_REFERENCE: Final = "a secret is given by reference only: env:NAME or file:PATH"


class ConfigError(ValueError):
    """What is wrong with a configuration: one line an error, each with its path in the file."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = list(errors)


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


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        populate_by_name=False,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )


class DatesConfig(_Section):
    """A range of partitions, both ends included."""

    from_: Day = Field(alias="from", description="first date, YYYY-MM-DD")
    to: Day = Field(description="last date, YYYY-MM-DD")

    @model_validator(mode="after")
    def _in_order(self) -> DatesConfig:
        if self.to < self.from_:
            raise ValueError(f"'to' ({self.to}) is before 'from' ({self.from_})")
        return self


def _check_uri(uri: str) -> None:
    scheme, found, path = uri.partition("://")
    if found and scheme not in ("s3", "gs", "file"):
        raise ValueError(f"{scheme}:// is not supported; use s3://, gs://, file:// or a path")
    if _CREDENTIALS_IN_URL(uri):
        raise ValueError("holds credentials; give them in storage_options, by reference")
    path = path if found else uri
    if not path.strip("/ "):
        raise ValueError("names no file")
    if path.endswith("/") or (scheme in ("s3", "gs") and found and "/" not in path):
        raise ValueError("names a folder; end it with a pattern, like /*.json or /** for all that is below")
    if uri.count("{date}") > 1:
        raise ValueError("{date} may stand in it once")


class SourceConfig(_Section):
    """What is read."""

    uri: str | list[str] = Field(
        description="`s3://`, `gs://`, `file://` or a path, or a list; with `*`, `?`, `[…]`, `**`, `{date}`"
    )
    dates: DatesConfig | None = Field(None, description="only these partitions; needs `{date}` in the uri")
    order: Literal["newest_first", "oldest_first"] = Field(
        "newest_first", description="which partition is sent first"
    )
    format: Literal["ndjson", "dead_letters"] = Field(
        "ndjson",
        description="one JSON record a line, compression is told by content; or the dead letters of a run",
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
            _check_uri(uri)
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
    project_id: Name | None = Field(None, description="the project's number")

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
        if self.endpoint is not None:
            check_endpoint(self.endpoint, self.allow_any_endpoint)
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


_PERCENTAGE: Final = re.compile(r"(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?)%").fullmatch


def _amount(value: object) -> object:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not is_count and not (isinstance(value, str) and _PERCENTAGE(value)):
        raise ValueError("must be a count like 100 or a percentage like 1%")
    return value


Amount = Annotated[int | str, BeforeValidator(_amount)]


class RunConfig(_Section):
    """The run itself."""

    id: Name | None = Field(None, description="the run's name; made from the time if not given")
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
        None,
        description='count or "1%": above it the run stops with exit code 8; `null` stops at more than '
        "10,000 that are more than half of what was read, `100%` never",
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
        if _CREDENTIALS_IN_URL(value):
            raise ValueError("holds credentials; give them in storage_options, by reference")
        if not value.partition("://")[2 if "://" in value else 0].strip("/ "):
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
    def _workers_reach_everything(self) -> Config:
        if self.beam.runner == "DirectRunner":
            return self
        if "://" not in self.run.state or self.run.state.startswith("file:"):
            raise ValueError(
                f"run.state must be a folder that {self.beam.runner}'s workers reach: s3:// or gs://"
            )
        if self.destination.emulator:
            raise ValueError(f"destination.emulator runs on this machine only, not with {self.beam.runner}")
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
    """PyYAML's safe loader without its surprises.

    It otherwise lets the last of two equal keys win in silence, fails on a 30 February without saying where,
    and takes 010 for eight and 1:30 for ninety.
    """


_PLAIN: Final = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp"))
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _PLAIN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_PLAIN[0], re.compile(r"-?(0|[1-9][0-9]{0,99})$"), list("-0123456789"))
_Loader.add_implicit_resolver(
    _PLAIN[1],
    re.compile(r"-?(0|[1-9][0-9]{0,99})(\.[0-9]+)?([eE][-+]?[0-9]+)?$"),
    list("-0123456789"),
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        problem = None
        if not isinstance(key, yaml.ScalarNode):
            problem = "a key is a name"
        elif key.tag == "tag:yaml.org,2002:merge":
            problem = "'<<' is not supported; write the keys out"
        elif key.value in seen:
            problem = f"the key {key.value!r} stands twice"
        if problem:
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        seen.add(key.value)
    return dict(loader.construct_pairs(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _parse_yaml(path: str, raw: bytes) -> dict[str, Any]:
    values: object = None
    try:
        text = raw.decode()
        aliases = sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text))
        if aliases <= MAX_ALIASES:
            values = yaml.load(text, Loader=_Loader)
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: is no text in UTF-8"]) from None
    except RecursionError:
        raise ConfigError([f"{path}: no valid YAML: nested too deep"]) from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise ConfigError([f"{path}{place}: no valid YAML: {_yaml_problem(error)}"]) from None
    if aliases > MAX_ALIASES:
        raise ConfigError([f"{path}: more than {MAX_ALIASES} YAML aliases"])
    if not isinstance(values, dict):
        raise ConfigError([f"{path}: must hold sections like 'source:' and 'destination:'"])
    return values


def _yaml_problem(error: Exception) -> str:
    """Returns what is wrong in words that lead to the cause, for the traps that people fall into here."""
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or type(error).__name__
    if "'\\t'" in problem:
        return "a tab; YAML is indented by spaces"
    if "but got '{'" in problem:
        return f"{problem} (between braces a value with {{date}} needs quotes)"
    return str(problem)


def _apply(values: dict[str, Any], override: str) -> str | None:
    """Sets one value; returns what is wrong with the override, if anything is."""
    key, found, text = override.partition("=")
    names = key.split(".")
    if not found or not all(names):
        return f"--set {key}: must look like key.path=value"
    try:
        value = yaml.load(text, Loader=_Loader) if text else ""
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return f"--set {key}: the value is no valid YAML; a text with special characters needs quotes"
    section = values
    for name in names[:-1]:
        if section.get(name) is None:
            section[name] = {}
        inner = section[name]
        if not isinstance(inner, dict):
            return f"--set {key}: {name} has no keys"
        section = inner
    section[names[-1]] = value
    return None


def _lines(error: ValidationError) -> Iterator[str]:
    """Yields an error a line, with its path and without the value, which may be a secret."""
    messages: dict[str, list[str]] = {}
    for detail in error.errors(include_url=False, include_input=False, include_context=False):
        path = ".".join(str(part) for part in detail["loc"] if not _is_union_arm(part))
        messages.setdefault(path, []).append(_message(detail["type"], detail["msg"], detail["loc"]))
    for path, found in messages.items():
        # What may be one of several kinds fails once for each.
        first, *others = found
        rest = "".join(f" or {other.removeprefix('must be ')}" for other in others)
        yield f"{path or 'configuration'}: {first}{rest}"


_MESSAGES: Final = {
    "missing": "is required",
    "invalid_key": "a key is a name",
    "string_type": "must be text",
    "list_type": "must be a list",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "dict_type": "must be a section with keys of its own",
    "model_type": "must be a section with keys of its own",
}


def _message(kind: str, message: str, loc: Sequence[str | int]) -> str:
    if kind == "extra_forbidden":
        return f"unknown key; {_what_there_is(loc)}"
    return _MESSAGES.get(kind) or message.removeprefix("Value error, ").replace("Input should", "must", 1)


def _what_there_is(loc: Sequence[str | int]) -> str:
    """Returns the key that was probably meant by the last one of a path, or all that its section has."""
    section: type[BaseModel] = Config
    for part in loc[:-1]:
        section = next(s for s in _sections(section.model_fields[str(part)].annotation))
    names = [field.alias or name for name, field in section.model_fields.items()]
    close = difflib.get_close_matches(str(loc[-1]), names, 1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"


def _sections(annotation: object) -> Iterator[type[BaseModel]]:
    """Yields the section that a field holds, if it holds one."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield kind


def _is_union_arm(part: str | int) -> bool:
    return isinstance(part, str) and (part in ("str", "int") or "[" in part)


def _without_plain_secrets(options: dict[str, Any]) -> dict[str, Any]:
    for key in _secret_options(options):
        raise ValueError(f"{key}: {_BY_REFERENCE}")
    return options


def _secret_options(options: object, path: str = "") -> Iterator[str]:
    """Yields the paths of options that by their name or form hold a secret, and hold it in plain."""
    if isinstance(options, Mapping):
        for key, value in options.items():
            inner = f"{path}.{key}" if path else str(key)
            if _is_plain_secret(str(key), value):
                yield inner
            else:
                yield from _secret_options(value, inner)
    elif isinstance(options, list):
        for index, value in enumerate(options):
            yield from _secret_options(value, f"{path}.{index}")
    elif isinstance(options, str) and _CREDENTIALS_IN_URL(options):
        yield path


def _is_plain_secret(key: str, value: object) -> bool:
    if not _SECRET_OPTION(key) or value is None or isinstance(value, (bool, Mapping)) or is_reference(value):
        return False
    if key == "token" and isinstance(value, str):
        return value not in _GOOGLE_TOKENS and "/" not in value and not value.endswith(".json")
    return True


__all__ = ["Config", "ConfigError", "EndpointRefused", "load_config"]
