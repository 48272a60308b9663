"""The section `source` of the configuration: what is read, and in which order."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from pipelines.config_fields import DatesConfig, Section, StorageOptions, check_source_uri
from pipelines.config_formats import CsvConfig
from transforms.part_lines import Verify

Order = Literal["newest_first", "oldest_first"]
"""Which partition is sent first."""


class SourceConfig(Section):
    """What is read."""

    uri: str | list[str] = Field(
        description="`s3://`, `gs://`, `file://` or a path, or a list; with `*`, `?`, `[…]`, `**`, `{date}`"
    )
    dates: DatesConfig | None = Field(None, description="only these partitions; needs `{date}` in the uri")
    order: Order | None = Field(
        None,
        description="which partition is sent first; not given, `newest_first` for events, and for all else "
        "`oldest_first`, as it must be",
    )
    format: Literal["auto", "ndjson", "json", "csv", "tsv", "parquet", "avro", "dead_letters"] = Field(
        "auto",
        description="what the files hold ([formats.md](formats.md)); `auto` tells each file's by its content",
    )
    csv: CsvConfig = Field(default_factory=CsvConfig, description="see below")
    verify: Verify = Field(
        "stream",
        description="`full`: read a compressed file through before sending any of it; nothing of a damaged "
        "one is sent",
    )
    storage_options: StorageOptions = Field(
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

    @model_validator(mode="after")
    def _dates_need_a_place(self) -> SourceConfig:
        if self.dates and not all("{date}" in uri for uri in self.uris):
            raise ValueError("dates needs {date} in every uri")
        return self
