"""What a file holds, by its first bytes; and what is refused by name."""

import json

import pytest

from source_formats.detection import HEAD_BYTES, detect_format
from source_formats.lines import FormatProblem
from source_formats.opening import FormatChoice

PRETTY = json.dumps({"event": "a", "properties": {"time": 1}}, indent=2).encode()


@pytest.mark.parametrize(
    ("head", "name", "expected"),
    [
        (b"", "x", "ndjson"),
        (b'{"a":1}', "x", "ndjson"),
        (b'\n {"a":1}\n{"b":2}\n', "x", "ndjson"),
        (b'\xef\xbb\xbf{"a":1}\n', "x", "ndjson"),
        (b"no json\n", "x", "ndjson"),
        (b"[1]\n[2]\n", "x", "ndjson"),
        (b"[[[[[[", "x", "ndjson"),
        (b'{"a":1} rest\n{"b":1}\n', "x", "ndjson"),
        (b'{"event":"a","prop\n{"event":1}\n', "x", "ndjson"),
        (b'{"event":"a","properties":{\n{"event":1}\n', "x", "ndjson"),
        (b'{"a":"' + b"x" * HEAD_BYTES, "x", "ndjson"),
        (b'[{"a":1}]', "x", "json"),
        (b"[]", "x", "json"),
        (b" [", "x", "json"),
        (b'[\n{"a":1},\n{"b":2}\n', "x", "json"),
        (b'{"a":1}{"b":2}\n{"c":3}\n', "x", "json"),
        (b'[{"a":1}]\n[{"b":2}]\n', "x", "json"),
        (b'[{"a":1}]\n{"b":2}\n', "x", "json"),
        (b'{"a":1},\n{"b":2},\n', "x", "json"),
        (b'{"a":1} ,\r\n {"b":2}', "x", "json"),
        (b'{"a":1}, rest\n{"b":2}\n', "x", "ndjson"),
        (PRETTY, "x", "json"),
        (PRETTY + b"\n" + PRETTY, "x", "json"),
        (PRETTY[:30], "x", "json"),
        (b'[{"a":1}]', "x.json", "json"),
        (b"a,b\n1,2\n", "x.CSV", "csv"),
        (b"a\tb\n1\t2\n", "dt=1/x.tsv", "tsv"),
        (b'{"a":1}\n{"a":2}\n', "x.csv", "ndjson"),
        (b"a,b\n1,2\n", "x.txt", "ndjson"),
    ],
)
def test_a_format_is_told_by_content(head: bytes, name: str, expected: str) -> None:
    assert detect_format(head, name) == expected


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"ORC\x08\x03", "ORC.*as Parquet"),
        (b"PK\x03\x04\x14\x00", "zip archive or an Excel workbook.*CSV"),
        (b"ARROW1\x00\x00", "Feather"),
        (b"\xfd7zXZ\x00\x00", "xz.*zstd"),
        (b"<?xml version='1.0'?>", "XML"),
        (b"\n<!DOCTYPE html>", "HTML"),
        (b"<events>\n<event/>", "XML"),
        (b"%PDF-1.7", "PDF"),
        (b"SQLite format 3\x00", "SQLite"),
        (b"x" * 257 + b"ustar\x0000", "tar"),
        (b"SEQ\x06\x19org", "sequence"),
    ],
)
@pytest.mark.parametrize("choice", ["auto", "json"])
def test_what_cannot_be_read_is_refused_by_name(head: bytes, words: str, choice: str) -> None:
    with pytest.raises(FormatProblem, match=words) as caught:
        FormatChoice(choice).format_of(head, "x.json")  # type: ignore[arg-type]
    assert caught.value.problem == "unsupported_format"


@pytest.mark.parametrize("head", [b"SEQUENCE\nA\n", b"ORCHID,ROSE\n", b'{"a":"PK\x03\x04"}'])
def test_a_text_that_begins_with_the_same_letters_is_not_refused(head: bytes) -> None:
    assert detect_format(head, "x") == "ndjson"


@pytest.mark.parametrize("head", [b"", b"{}", b"[", b"nothing"])
def test_a_chosen_format_needs_no_evidence(head: bytes) -> None:
    assert FormatChoice("json").format_of(head, "x") == "json"
    assert FormatChoice("ndjson").format_of(head, "x") == "ndjson"


def test_a_chosen_format_that_does_not_fit_says_what_to_do() -> None:
    with pytest.raises(FormatProblem, match=r"source\.format is json.*looks like parquet.*auto"):
        FormatChoice("json").format_of(b"PAR1\x15\x00", "x.json")
