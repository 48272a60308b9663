"""The configuration of a run: what its sections and keys are, what each means, and which go together."""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from pydantic import Field, field_validator, model_validator

from mixpanel_http import limits
from mixpanel_http.client import HOSTS, Destination, check_endpoint
from mixpanel_http.delivery import RetryPolicy
from mixpanel_http.event_rules import EventRules
from mixpanel_http.identity_rules import IdentityRules
from mixpanel_http.insert_ids import InsertIdPolicy
from mixpanel_http.kinds import KINDS, KindName, Rules
from mixpanel_http.mixed_records import MixedRules
from mixpanel_http.profile_rules import ONLY_OF_USERS, Operation, ProfileRules
from mixpanel_http.secret_refs import SecretRef
from pipelines.config_beam import BeamConfig
from pipelines.config_fields import (
    CREDENTIALS_IN_URL,
    Amount,
    DatesConfig,
    Name,
    Reference,
    Section,
    check_source_uri,
    without_plain_secrets,
)
from pipelines.config_formats import CsvConfig
from pipelines.config_maps import MapConfig
from source_formats.opening import FormatChoice
from source_formats.row_lines import Shape

RUN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}").fullmatch


class SourceConfig(Section):
    """What is read."""

    uri: str | list[str] = Field(
        description="`s3://`, `gs://`, `file://` or a path, or a list; with `*`, `?`, `[…]`, `**`, `{date}`"
    )
    dates: DatesConfig | None = Field(None, description="only these partitions; needs `{date}` in the uri")
    order: Literal["newest_first", "oldest_first"] | None = Field(
        None,
        description="which partition is sent first; not given, `newest_first` for events, and for all else "
        "`oldest_first`, as it must be",
    )
    format: Literal["auto", "ndjson", "json", "csv", "tsv", "parquet", "avro", "dead_letters"] = Field(
        "auto",
        description="what the files hold ([formats.md](formats.md)); `auto` tells each file's by its content",
    )
    csv: CsvConfig = Field(default_factory=CsvConfig, description="see below")
    verify: Literal["stream", "full"] = Field(
        "stream",
        description="`full`: read a compressed file through before sending any of it; nothing of a damaged "
        "one is sent",
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
            check_source_uri(uri)
        if not value:
            raise ValueError("names no file")
        return value

    @field_validator("storage_options")
    @classmethod
    def _by_reference(cls, value: dict[str, Any]) -> dict[str, Any]:
        return without_plain_secrets(value)

    @model_validator(mode="after")
    def _dates_need_a_place(self) -> SourceConfig:
        if self.dates and not all("{date}" in uri for uri in self.uris):
            raise ValueError("dates needs {date} in every uri")
        return self


class InsertIdConfig(Section):
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


class RecordsConfig(Section):
    """What the records are and how they are made fit."""

    kind: KindName = Field(
        "events",
        description="what is imported: events, updates of user or group profiles, identity records, records "
        "that say it themselves, or lookup tables (CSV)",
    )
    map: MapConfig | None = Field(
        None, description="how records of another shape become Mixpanel's; see below"
    )
    insert_id: InsertIdConfig = Field(default_factory=InsertIdConfig, description="see below")
    duplicate_keys: Literal["last", "refuse"] = Field(
        "last",
        description="objects with the same key twice: `last`: rules, ids and maps take the last, and what "
        "needs no change is sent as it stands; `refuse`: a dead letter",
    )
    default_ip: Literal[0] | None = Field(
        0,
        description="`ip` for events and `$ip` for user profiles without one, else they are located where "
        "this runs; `null`: leave them",
    )
    operation: Operation = Field("$set", description="what a flat row does to its profile")
    id_field: str | None = Field(
        None,
        description="the field of a flat row that holds the profile's id; `null`: records are operations",
    )
    group_key: str | None = Field(None, description="the kind of group, for records without `$group_key`")
    collapse: bool = Field(
        False,
        description="send one update of a profile in place of several, where that leaves the same profile",
    )
    ignore_time: bool = Field(
        True,
        description="leave `$last_seen` as it is: stamp `$ignore_time` on updates of users without it",
    )
    tables: dict[str, Name] = Field(
        default_factory=dict,
        description="ids of lookup tables by patterns of file names; without any, a file is named by its id",
    )


class ServiceAccountConfig(Section):
    """A service account with the role of an owner or admin in the project."""

    username: Reference = Field(description="reference to the user name")
    secret: Reference = Field(description="reference to the secret")


class CredentialsConfig(Section):
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


class DestinationConfig(Section):
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


class RetryConfig(Section):
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
    non_idempotent: Literal["list", "retry"] = Field(
        "list",
        description="`$add` and `$append` that may have got through: list them as ambiguous, or repeat them",
    )


class LimitsConfig(Section):
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
    lanes: int | None = Field(
        None, ge=1, le=256, description="parts in which work and limits are shared by workers; see scale.md"
    )
    retry: RetryConfig = Field(default_factory=RetryConfig, description="see below")


class RunConfig(Section):
    """The run itself."""

    id: Name | None = Field(None, description="the run's name; made from the time if not given")
    state: str = Field(
        ".backfill", description="folder for ledger, dead letters, reports: a path, `s3://` or `gs://`"
    )
    storage_options: dict[str, Any] = Field(
        default_factory=dict, description="handed to fsspec for the state folder; secrets by reference"
    )
    lease_seconds: float = Field(
        90.0,
        gt=0,
        description="without a sign of life for so long, a start on another machine counts as gone",
    )
    stuck_after_seconds: float = Field(
        600.0,
        gt=0,
        description="without progress for so long, while nothing waits on purpose, the run is ended; "
        "a request alone may take 120",
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
        if CREDENTIALS_IN_URL(value):
            raise ValueError("holds credentials; give them in storage_options, by reference")
        if not value.partition("://")[2 if "://" in value else 0].strip("/ "):
            raise ValueError("names no folder")
        return value

    @field_validator("storage_options")
    @classmethod
    def _by_reference(cls, value: dict[str, Any]) -> dict[str, Any]:
        return without_plain_secrets(value)


def _check_records(records: RecordsConfig) -> None:
    """Refuses settings that the kind of records knows nothing of."""
    if records.collapse and records.kind not in ("profiles", "groups", "mixed"):
        raise ValueError(f"records.collapse goes with updates of profiles, not with kind {records.kind}")
    if records.kind not in ("profiles", "groups") and records.id_field is not None:
        raise ValueError(f"records.id_field goes with kind profiles or groups, not with {records.kind}")
    if records.id_field is None and records.operation != "$set":
        raise ValueError("records.operation is what a flat row does, and needs records.id_field")
    if records.kind == "groups" and records.operation in ONLY_OF_USERS:
        raise ValueError(f"records.operation {records.operation} is not supported in group profiles")
    if records.kind == "lookup_tables" and records.map is not None:
        raise ValueError("records.map does not go with kind lookup_tables: a table is sent as it stands")
    if records.kind != "lookup_tables" and records.tables:
        raise ValueError(f"records.tables goes with kind lookup_tables, not with {records.kind}")


class Config(Section):
    """A run's configuration, as the YAML file has it."""

    source: SourceConfig
    records: RecordsConfig = Field(default_factory=RecordsConfig)
    destination: DestinationConfig
    limits: LimitsConfig = Field(default_factory=LimitsConfig)
    run: RunConfig = Field(default_factory=RunConfig)
    beam: BeamConfig = Field(default_factory=BeamConfig)

    @model_validator(mode="after")
    def _lanes_have_requests(self) -> Config:
        if self.limits.lanes is not None and self.limits.lanes > self.limits.in_flight:
            raise ValueError("limits.lanes must not be above limits.in_flight: each has a request at least")
        return self

    @model_validator(mode="after")
    def _workers_reach_everything(self) -> Config:
        if self.beam.on_one_machine:
            return self
        if "://" not in self.run.state or self.run.state.startswith("file:"):
            raise ValueError(
                f"run.state must be a folder that {self.beam.runner}'s workers reach: s3:// or gs://"
            )
        if self.destination.emulator:
            raise ValueError(f"destination.emulator runs on this machine only, not with {self.beam.runner}")
        return self

    @model_validator(mode="after")
    def _map_fits(self) -> Config:
        declared = self.records.map
        if declared is None:
            return self
        if self.records.kind != "events" and not declared.is_function_alone:
            raise ValueError(
                "records.map makes events: "
                f"with records.kind {self.records.kind} it may hold a function alone"
            )
        if declared.reads_lines and self.source.format not in ("ndjson", "dead_letters"):
            raise ValueError(
                f"records.map.dialect {declared.dialect} reads the lines itself; give source.format: ndjson"
            )
        return self

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Config:
        kind, credentials = KINDS[self.records.kind], self.destination.credentials
        if kind.in_order and self.source.order == "newest_first":
            raise ValueError(
                f"source.order must be oldest_first with records.kind {self.records.kind}: "
                "a later update is to win over an earlier one"
            )
        if kind.in_order and (self.limits.lanes or 1) > 1:
            raise ValueError(
                f"limits.lanes must be 1 with records.kind {self.records.kind}: updates keep their order"
            )
        _check_records(self.records)
        if self.records.kind == "identity" and self.destination.identity == "simplified":
            raise ValueError(
                "records.kind identity needs destination.identity: original. A project with simplified "
                "identity refuses these records: put $device_id and $user_id into its events instead"
            )
        if kind.wants_token and credentials is not None and credentials.project_token is None:
            raise ValueError(
                f"records.kind {self.records.kind} needs destination.credentials.project_token: "
                "each record carries the project's token, for which a service account cannot do"
            )
        return self

    @property
    def destinations(self) -> list[DestinationConfig]:
        """Where the run sends to."""
        return [self.destination]

    @property
    def maps(self) -> list[MapConfig]:
        """The run's maps."""
        return [self.records.map] if self.records.map is not None else []

    @property
    def order(self) -> Literal["newest_first", "oldest_first"]:
        """Which partition is sent first."""
        return self.source.order or ("oldest_first" if KINDS[self.records.kind].in_order else "newest_first")

    def rules(self) -> Rules:
        """Returns the rules for this run's records."""
        kind = self.records.kind
        if kind in ("profiles", "groups"):
            return self.profile_rules(groups=kind == "groups")
        identity = IdentityRules(self.destination.identity)
        if kind == "identity":
            return identity
        events = self.event_rules()
        if kind != "mixed":
            return events
        users, groups = self.profile_rules(groups=False), self.profile_rules(groups=True)
        return MixedRules(events, users, groups, identity)

    def profile_rules(self, *, groups: bool) -> ProfileRules:
        """Returns the rules for this run's updates of profiles of users, or of groups."""
        records = self.records
        return ProfileRules(
            groups,
            records.id_field,
            records.operation,
            records.group_key,
            records.default_ip is not None,
            records.ignore_time,
        )

    def format_choice(self) -> FormatChoice:
        """Returns how files are read; dead letters are lines, and rows are events where nothing maps them."""
        shape: Shape = "events" if self.records.kind == "events" and self.records.map is None else "rows"
        name = "ndjson" if self.source.format == "dead_letters" else self.source.format
        return FormatChoice(name, self.source.csv.to_layout(shape))

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
