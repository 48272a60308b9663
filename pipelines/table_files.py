"""Which file is which lookup table."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from pipelines.listing import SourceFile
from transforms.compression import without_suffix
from transforms.elements import FilePart, Segment


def table_of(uri: str, tables: Mapping[str, str]) -> str | None:
    """Returns the id of the table that a file holds.

    >>> table_of("s3://b/skus.csv.gz", {"skus.csv*": "f077"}), table_of("/data/f077.csv", {})
    ('f077', 'f077')

    Args:
        uri: the file.
        tables: ids by patterns of file names, of which the first that fits counts; without any, a file is
            named by its table's id.
    """
    name = PurePosixPath(uri).name
    if not tables:
        return without_suffix(name).removesuffix(".csv")
    return next((table for pattern, table in tables.items() if fnmatch.fnmatchcase(name, pattern)), None)


def table_segments(files: Iterable[SourceFile]) -> Iterator[Segment]:
    """Yields a segment for each file: a table is read and replaced as a whole."""
    for number, file in enumerate(files):
        yield Segment(f"{number:07d}", (FilePart(file.uri, file.size, file.version),))


def table_problems(uris: Iterable[str], tables: Mapping[str, str]) -> list[str]:
    """Returns what is wrong with files: no table's, or a table's that has one already."""
    taken: dict[str, str] = {}
    problems = []
    for uri in uris:
        table = table_of(uri, tables)
        if table is None:
            problems.append(f"{uri}: fits no pattern of records.tables; add one, or leave the file out")
        elif taken.setdefault(table, uri) != uri:
            problems.append(f"{uri}: is lookup table {table}, and so is {taken[table]}")
    return problems
