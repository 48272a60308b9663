"""Functions of the user's own: what they return is taken down as it was, and what is wrong with it told."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from record_maps.functions import FunctionMissing
from record_maps.mapper import MappedLines, Mapper
from record_maps.spec import MIXPANEL_SHAPE, refine

LINE = b'{"event":"e","properties":{"time":1709627400,"distinct_id":"secret@x.org"}}'
Run = Callable[[str], MappedLines]
_numbers = itertools.count()


@pytest.fixture
def mapped_by(tmp_path: Path) -> Run:
    """Maps a line by a function `f` of a module with this text."""

    def run(text: str) -> MappedLines:
        module = f"functions_of_a_test_{next(_numbers)}"  # of its own: modules stay loaded
        (tmp_path / f"{module}.py").write_text(text)
        return Mapper(refine(MIXPANEL_SHAPE, {"function": f"{module}:f"}), str(tmp_path)).map_lines([LINE])

    return run


def test_a_generator_may_yield_one_dict_again_and_again(mapped_by: Run) -> None:
    loop = "    for record['properties']['i'] in range(3):\n        yield record\n"
    found = mapped_by("def f(record):\n" + loop)

    assert [json.loads(line)["properties"]["i"] for line in found.lines] == [0, 1, 2]
    assert found.expanded == [0, 0]


@pytest.mark.parametrize(
    ("returned", "kind"),
    [
        ("7", "int"),
        ("'text'", "str"),
        ("True", "bool"),
        ("[None]", "NoneType"),
        ("[[]]", "list"),
        ("b''", "bytes"),
    ],
)
def test_what_is_no_record_is_told_by_its_kind(mapped_by: Run, returned: str, kind: str) -> None:
    (rejection,) = mapped_by(f"def f(record):\n    return {returned}\n").rejections

    assert rejection.reason == "map_failed"
    assert rejection.message.endswith(f":f must return a dict, an iterable of dicts or None, not {kind}")


@pytest.mark.parametrize("raised", ["ValueError(record)", "SystemExit(3)"])
def test_an_error_is_told_with_its_place_and_without_its_words(mapped_by: Run, raised: str) -> None:
    (rejection,) = mapped_by(
        f"def f(record):\n    return g(record)\n\ndef g(record):\n    raise {raised}\n"
    ).rejections

    assert f"failed: {raised.partition('(')[0]} (functions_of_a_test_" in rejection.message
    assert rejection.message.endswith(".py, line 5)")
    assert "secret" not in rejection.message


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_a_number_that_json_has_no_form_for_does_not_become_null(mapped_by: Run, number: str) -> None:
    found = mapped_by(
        f"def f(record):\n    return {{**record, 'properties': {{'x': [float('{number}')]}}}}\n"
    )

    assert [rejection.reason for rejection in found.rejections] == ["non_finite_number"]
    assert not found.lines


def test_a_null_may_be_returned(mapped_by: Run) -> None:
    (line,) = mapped_by(
        "def f(record):\n    return {'event': 'e', 'properties': {'x': None, 'y': (1.5, 2)}}\n"
    ).lines

    assert json.loads(line)["properties"] == {"x": None, "y": [1.5, 2]}


def test_nothing_is_taken_of_a_generator_that_fails_on_the_way(mapped_by: Run) -> None:
    found: Any = mapped_by("def f(record):\n    yield record\n    raise KeyError('x')\n")

    assert (found.lines, found.filtered, found.expanded) == ([], [], [])
    assert len(found.rejections) == 1


def test_a_generator_without_end_is_told_and_does_not_fill_the_memory(mapped_by: Run) -> None:
    (rejection,) = mapped_by("def f(record):\n    while True:\n        yield {}\n").rejections

    assert rejection.reason == "map_failed"
    assert rejection.message.endswith(":f made more than 100,000 records of one")


def test_a_module_that_is_a_script_and_exits_is_refused_and_ends_nothing(mapped_by: Run) -> None:
    with pytest.raises(FunctionMissing, match="cannot be imported: SystemExit"):
        mapped_by("import sys\ndef f(record):\n    return record\nsys.exit(0)\n")
