"""Every example of docs/mapping.md and of the dialects' pages does what the page says."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest

from pipelines.config_reading import load_config
from record_maps.mapper import Mapper

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = [DOCS / "mapping.md", *sorted((DOCS / "dialects").glob("*.md"))]
SALT = "salt-of-the-test"


def examples() -> Iterator[tuple[str, str, str]]:
    for page in PAGES:
        found = re.findall(r"```yaml\n(map:.*?)```\n```text\n(.*?)```", page.read_text(), re.DOTALL)
        for number, (text, lines) in enumerate(found):
            yield f"{page.stem}-{number}", text, lines


def steps(lines: str) -> Iterator[tuple[str, list[str]]]:
    """Yields each line of the source with all that becomes of it."""
    for part in re.split(r"^< ", lines, flags=re.MULTILINE)[1:]:
        source, *made = part.rstrip("\n").split("\n> ")
        yield source, made


def outcome(spec: Any, line: str) -> list[Any]:
    mapped = Mapper(spec).map_lines([line.encode()])
    return [
        *map(json.loads, mapped.lines),
        *(f"filtered: {reason}" for _, reason in mapped.filtered),
        *(f"dead letter: {rejection.reason}" for rejection in mapped.rejections),
    ]


@pytest.mark.parametrize(("text", "lines"), [e[1:] for e in examples()], ids=[e[0] for e in examples()])
def test_an_example_does_what_the_page_says(
    text: str, lines: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HASH_SALT", SALT)
    path = tmp_path / "example.yaml"
    path.write_text(
        f"source: {{uri: x, format: ndjson}}\ndestination: {{emulator: true}}\nrecords:\n{indent(text, '  ')}"
    )
    declared = load_config(str(path)).records.map
    tried = list(steps(lines))

    assert declared is not None
    assert tried
    spec = declared.to_spec()
    for source, made in tried:
        expected = [json.loads(text) if text.startswith("{") else text for text in made]
        assert outcome(spec, source) == expected


def test_the_mapping_page_has_examples() -> None:
    assert sum(name.startswith("mapping-") for name, *_ in examples()) >= 6
