"""The section `records.map`: how records of another shape become Mixpanel's."""

from __future__ import annotations

import dataclasses
import zoneinfo
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from mixpanel_http.secret_refs import SecretRef
from pipelines.config_fields import DatesConfig, Section
from pipelines.config_map_mistakes import mistakes
from pipelines.config_personal_data import PersonalDataConfig
from record_maps.functions import fingerprint, load_function
from record_maps.known_dialects import DIALECTS
from record_maps.spec import (
    MIXPANEL_SHAPE,
    RECIPE,
    ROWS,
    Const,
    EventNames,
    Flatten,
    MapSpec,
    Spread,
    Value,
    is_function_name,
    parse_const,
    parse_property,
    parse_value,
    refine,
)
from record_maps.times import check_time_format

ALL: Final = "all"
MOST_OFFSET_S: Final = 3_155_760_000  # a hundred years


def _map_source(given: object) -> object:
    parse_value(given)
    return given


def _properties(given: object) -> object:
    """Refuses what says of no property where it comes from, naming all that is wrong."""
    if given == ALL:
        return given
    if not isinstance(given, dict):
        raise ValueError("must be all, or names of properties with where each comes from")
    problems = []
    for name, value in given.items():
        try:
            parse_property(name, value)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise ValueError("; ".join(problems))
    return given


def _zone(given: str) -> str:
    try:
        zoneinfo.ZoneInfo(given)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"{given!r} is no time zone; they are called like Europe/Berlin or UTC, and Etc/GMT-1 is +01:00"
        ) from None
    return given


def _constant(given: object) -> object:
    parse_const(given)
    return given


def _dialect(given: str) -> str:
    if given not in DIALECTS:
        raise ValueError(f"must be one of {', '.join(sorted(DIALECTS))}")
    return given


Source = Annotated[Any, BeforeValidator(_map_source)]
Properties = Annotated[Any, BeforeValidator(_properties)]
Constant = Annotated[Any, BeforeValidator(_constant)]
DialectName = Annotated[str, AfterValidator(_dialect)]
Zone = Annotated[str, AfterValidator(_zone)]
Format = Annotated[str, AfterValidator(check_time_format)]


class MapTimeConfig(Section):
    """When an event was; a path alone stands for `from`."""

    from_: Source | None = Field(None, alias="from", description="where it is")
    format: Format = Field(
        "auto",
        description="`iso8601`, `seconds`, `milliseconds`, `microseconds`, a pattern like `%d.%m.%Y %H:%M`; "
        "`auto` takes text for ISO 8601 and tells numbers by their size",
    )
    zone: Zone = Field("UTC", description="zone of texts that name none")
    wall_clock: bool = Field(
        False, description="numbers count what a clock in `zone` showed, as if that were UTC"
    )
    offset: float = Field(0.0, ge=-MOST_OFFSET_S, le=MOST_OFFSET_S, description="seconds added to every time")


class MapEventsConfig(Section):
    """Which events are wanted, by name; globs."""

    allow: list[str] = Field(default_factory=list, description="only these")
    deny: list[str] = Field(default_factory=list, description="not these")
    rename: dict[str, str] = Field(default_factory=dict, description="new names, by the old ones")


class MapFlattenConfig(Section):
    """Objects become properties of their own; `true` stands for the defaults."""

    separator: str = Field(".", description="between the names")
    depth: int = Field(10, ge=1, le=100, description="levels; what lies deeper stays an object")


class MapConfig(Section):
    """How records of another shape become Mixpanel's; only what is given is touched."""

    dialect: DialectName | None = Field(None, description="a named map, which the other keys refine")
    function: str | None = Field(
        None, description="`module:function`: a record in, any number out, before everything else"
    )
    event: Source | None = Field(
        None, description="the event's name; without it records have Mixpanel's shape"
    )
    time: MapTimeConfig | None = Field(None, description="when, else what `time` says; see below")
    distinct_id: Source | None = Field(None, description="who, else what `distinct_id` says")
    insert_id: Source | None = Field(
        None,
        alias="$insert_id",
        description="the event's own id, else what `$insert_id` says, or one is made",
    )
    properties: Properties = Field(
        ALL, description="`all`, or names with where each comes from; `*` for all others"
    )
    events: MapEventsConfig | None = Field(None, description="which events are wanted; see below")
    rename: dict[str, str] = Field(
        default_factory=dict, description="new names of properties, by the old ones"
    )
    drop: list[str] = Field(default_factory=list, description="properties to leave out; globs, new names")
    keep: list[str] = Field(default_factory=list, description="the only properties to keep; likewise")
    flatten: MapFlattenConfig | None = Field(
        None, description="`true` or a section: objects become properties of their own"
    )
    drop_nulls: bool = Field(False, description="leave out properties that are null")
    deep_as_text: bool = Field(
        False, description="make what is nested deeper than Mixpanel takes a text of JSON; dialects do"
    )
    personal_data: PersonalDataConfig | None = Field(None, description="what is hashed or removed; see below")
    tags: dict[str, Constant] = Field(
        default_factory=dict, description="properties for every record, by their names"
    )
    dates: DatesConfig | None = Field(
        None, description="only events of these days, by their own time, in UTC"
    )

    @field_validator("time", mode="before")
    @classmethod
    def _path_alone(cls, value: object) -> object:
        is_section = isinstance(value, dict) and set(value) != {"const"}
        return value if is_section or value is None else {"from": value}

    @field_validator("flatten", mode="before")
    @classmethod
    def _true_for_defaults(cls, value: object) -> object:
        return {} if value is True else None if value is False else value

    @field_validator("function")
    @classmethod
    def _is_there(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        if not is_function_name(value):
            raise ValueError("must look like module:function")
        load_function(value, (info.context or {}).get("folder"))
        return value

    @model_validator(mode="after")
    def _shape_is_known(self) -> MapConfig:
        if self.event is None and self.dialect is None:
            for name in ("time", "distinct_id", "insert_id"):
                given = getattr(self, name)
                given = given.from_ if isinstance(given, MapTimeConfig) else given
                if given is not None and not _lies_in_shape(parse_value(given)):
                    raise ValueError(
                        "event is required, unless the records have Mixpanel's shape: then all others lie "
                        "below properties, like properties.time"
                    )
            for name, given in ({} if self.properties == ALL else self.properties).items():
                if not _lies_in_shape(parse_property(name, given), "event"):
                    raise ValueError(
                        f"properties: {name}: without event, records have Mixpanel's shape: paths are like "
                        "properties.plan, and all properties are properties.*"
                    )
        return self

    @model_validator(mode="after")
    def _can_be_meant(self) -> MapConfig:
        event = parse_value(self.event) if self.event is not None else ()
        properties = {} if self.properties == ALL else self.properties
        problems = list(mistakes(event, properties, self.rename, self.drop, self.tags))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def is_function_alone(self) -> bool:
        """True if nothing but a function is given, which may make records of any kind."""
        return self.model_fields_set == {"function"}

    @property
    def reads_lines(self) -> bool:
        """True if the dialect's lines are no JSON, so that nobody else must read them first."""
        return self.dialect is not None and DIALECTS[self.dialect].spec.read is not None

    def check_secrets(self) -> None:
        """Resolves what the map refers to.

        Raises:
            SecretUnavailable: if it is not there.
        """
        if self.personal_data is not None and self.personal_data.salt is not None:
            SecretRef(self.personal_data.salt).resolve()

    def to_spec(self) -> MapSpec:
        """Returns the map: what is given here, on what the dialect or Mixpanel's own shape says."""
        base = DIALECTS[self.dialect].spec if self.dialect else ROWS if self.event else MIXPANEL_SHAPE
        given: dict[str, Any] = {}
        for name in ("event", "distinct_id", "insert_id"):
            value = getattr(self, name)
            if value is not None:
                given[name] = parse_value(value)
        if self.time is not None:
            given["time"] = dataclasses.replace(base.time, **_time_given(self.time))
        if self.properties != ALL:
            entries = {name: parse_property(name, value) for name, value in self.properties.items()}
            given["properties"] = tuple(entries.items())
            base = base if self.dialect else dataclasses.replace(base, properties=())
        given |= self._lists()
        for name in ("drop_nulls", "deep_as_text", "function"):
            if name in self.model_fields_set:
                given[name] = getattr(self, name)
        if self.flatten is not None or "flatten" in self.model_fields_set:
            given["flatten"] = Flatten(self.flatten.separator, self.flatten.depth) if self.flatten else None
        if self.personal_data is not None:
            given["personal_data"] = self.personal_data.to_personal_data()
        if self.dates is not None:
            given["dates"] = (self.dates.from_, self.dates.to)
        return refine(base, given)

    def settings(self) -> dict[str, Any]:
        """Returns what decides the records that the map makes, for a resume to compare."""
        given = self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        if self.function is not None:
            given["function"] = f"{self.function} {fingerprint(self.function)}"
        return {**given, "recipe": RECIPE}

    def _lists(self) -> dict[str, Any]:
        given: dict[str, Any] = {
            "rename": tuple(self.rename.items()),
            "drop": tuple(self.drop),
            "tags": tuple((name, parse_const(value)) for name, value in self.tags.items()),
        }
        if self.keep:
            given["keep"] = tuple(self.keep)
        if self.events is not None:
            events = self.events
            given["events"] = EventNames(
                tuple(events.allow), tuple(events.deny), tuple(events.rename.items())
            )
        return given


def _time_given(time: MapTimeConfig) -> dict[str, Any]:
    """Returns what a section on time says, apart from what it leaves as it is."""
    names = time.model_fields_set & {"format", "zone", "wall_clock"}
    given: dict[str, Any] = {name: getattr(time, name) for name in names}
    if time.from_ is not None:
        given["value"] = parse_value(time.from_)
    if "offset" in time.model_fields_set:
        given["offset_s"] = time.offset
    return given


def _lies_in_shape(value: Value | Spread, *beside: str) -> bool:
    """Returns whether a value comes from an event's properties, or from a field of the event named beside."""
    if isinstance(value, Spread):
        return value.path[:1] == ("properties",)
    return all(isinstance(source, Const) or source[0] in ("properties", *beside) for source in value)
