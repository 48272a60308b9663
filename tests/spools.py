"""What tests of the spool read back from its files."""

import gzip
import json
from pathlib import Path
from typing import Any

Line = tuple[str, dict[str, Any]]


def lines_in(content: bytes) -> list[Line]:
    """Returns the lines of a finished file, each as endpoint and message."""
    return [
        (endpoint, message) for endpoint, message in map(json.loads, gzip.decompress(content).splitlines())
    ]


def spooled(folder: Path) -> list[Line]:
    """Returns what a backfill would see of a spool, in the order of the files' names."""
    files = sorted(folder.glob("dt=*/*.jsonl.gz"), key=lambda path: path.name)
    return [line for path in files for line in lines_in(path.read_bytes())]


def numbers(lines: list[Line]) -> list[int]:
    """Returns the property `n` of each message, however deep it stands."""
    return [
        next(
            part["n"]
            for part in (message.get("properties"), message.get("$set"), message)
            if part and "n" in part
        )
        for _, message in lines
    ]
