"""The section `source.csv`: how CSV and TSV are laid out, and what their fields mean."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from pipelines.config_fields import Section
from source_formats.field_types import FieldType
from source_formats.row_lines import Shape
from source_formats.table_rows import TableLayout


class CsvConfig(Section):
    """How CSV and TSV files are laid out, and what their fields mean."""

    delimiter: str | None = Field(
        None,
        description="between fields; not given, a tab in TSV, and in CSV the one of `,` `;` `|` and tab that "
        "is most often in the first line",
    )
    quote: str | None = Field('"', description="around fields; `null`: quotes are text")
    header: bool = Field(True, description="the first row names the columns")
    columns: list[str] = Field(
        default_factory=list, description="the columns' names, instead of the header's"
    )
    types: dict[str, FieldType] = Field(
        default_factory=dict,
        description="columns' types: `string`, `integer`, `number`, `boolean`, `json`, `timestamp`; a row "
        "with anything else in such a column is a dead letter",
    )
    infer: bool = Field(True, description="tell the values of other columns by spelling; else they are texts")
    empty: Literal["absent", "null", "text"] = Field("absent", description="what an empty field is")

    @field_validator("delimiter", "quote")
    @classmethod
    def _one_character(cls, value: str | None) -> str | None:
        if value is not None and (len(value) != 1 or value in "\r\n" or not value.isascii()):
            raise ValueError("must be one ASCII character, and no line break")
        return value

    @model_validator(mode="after")
    def _has_names(self) -> CsvConfig:
        if not self.header and not self.columns:
            raise ValueError("without a header, columns must name the columns")
        if self.delimiter is not None and self.delimiter == self.quote:
            raise ValueError("delimiter and quote must differ")
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice or not all(self.columns):
            raise ValueError(f"columns: {twice[0]!r} is named twice" if twice else "columns: a name is empty")
        unknown = sorted(self.types.keys() - set(self.columns))
        if self.columns and unknown:
            raise ValueError(f"types: {unknown[0]!r} is none of the columns")
        return self

    def to_layout(self, shape: Shape) -> TableLayout:
        """Returns the same for the reader."""
        return TableLayout(
            self.delimiter,
            self.quote,
            self.header,
            tuple(self.columns),
            dict(self.types),
            self.infer,
            self.empty,
            shape,
        )
