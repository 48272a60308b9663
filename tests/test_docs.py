"""The documentation says what the program does: keys, options, exit codes, commands, links.

`python -m tests.test_docs` writes the tables of docs/configuration.md anew.
"""

import argparse
import datetime as dt
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import annotated_types
import orjson
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mixpanel_http.verdicts import Reason
from pipelines.command import run
from pipelines.config import Config
from pipelines.config_jobs import JobConfig
from pipelines.config_reading import load_run
from pipelines.report import ExitCode
from run_backfill import looking_parser, parser

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
CONFIGURATION = DOCS / "configuration.md"
EXIT_CODES = DOCS / "exit-codes.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
# Kinds of values that the configuration names with types of its own, by the function that checks them.
KINDS = {
    "_reference": "reference",
    "_amount": "count or percentage",
    "_day": "date",
    "_number_as_text": "text",
    "_map_source": "path, constant or list of these",
    "_properties": "`all` or names with sources",
    "_constant": "value",
    "_dialect": "name",
    "_zone": "time zone",
    "check_time_format": "format",
}
PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", dt.date: "date"}


# The tables of docs/configuration.md, from the models.


def sections(model: type[BaseModel] = Config, path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yields each section's path and model, in the order of the models."""
    for name, field in model.model_fields.items():
        inner = section_of(field)
        if inner is not None:
            below = f"{path}.{name}".lstrip(".")
            yield below, inner
            yield from sections(inner, below)


def all_sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """Yields the sections of a run of one job, and what a job of several has."""
    yield from sections()
    yield "jobs", JobConfig


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    kinds = (field.annotation, *get_args(field.annotation))
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)


def table(path: str, model: type[BaseModel]) -> str:
    """Returns a section's keys as a Markdown table."""
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in model.model_fields.items():
        cells = (f"`{field.alias or name}`", kind_of(path, name, field), default_of(field), field.description)
        rows.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    return "\n".join(rows)


def kind_of(path: str, name: str, field: FieldInfo) -> str:
    if section_of(field) is not None:
        below = "" if path == "jobs" else path.replace(".", "")  # what a job has, a run of one has, too
        return f"[section](#{below}{name})"
    own = next((KINDS[c] for m in field.metadata if (c := checker(m)) in KINDS), None)
    words = [own] if own else [kind for kind in kinds_of(field.annotation) if kind]
    return " or ".join(words) + bounds(field)


def kinds_of(annotation: Any) -> Iterator[str]:
    own = next(
        (KINDS[c] for m in getattr(annotation, "__metadata__", ()) if (c := checker(m)) in KINDS), None
    )
    if own:
        yield own
    elif annotation in PLAIN:
        yield PLAIN[annotation]
    elif annotation is type(None):
        yield "`null`"
    elif get_origin(annotation) is Literal:
        yield " or ".join(f"`{value}`" for value in get_args(annotation))
    elif get_origin(annotation) is list:
        yield f"list of {' or '.join(kinds_of(get_args(annotation)[0]))}s"
    elif get_origin(annotation) is dict:
        yield "keys and values"
    else:
        for arm in get_args(annotation):
            yield from kinds_of(arm)


def checker(metadata: Any) -> str:
    return getattr(getattr(metadata, "func", None), "__name__", "")


def bounds(field: FieldInfo) -> str:
    low = next((m.ge for m in field.metadata if isinstance(m, annotated_types.Ge)), None)
    high = next((m.le for m in field.metadata if isinstance(m, annotated_types.Le)), None)
    above = next((m.gt for m in field.metadata if isinstance(m, annotated_types.Gt)), None)
    if above is not None:
        return f", above {above}"
    return f", {low} to {high}" if low is not None else ""


def default_of(field: FieldInfo) -> str:
    if section_of(field) is not None and not field.is_required():
        return ""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, bool):
        return f"`{orjson.dumps(value).decode()}`"
    return f"`{int(value) if isinstance(value, float) else value}`"


def blocks(text: str) -> dict[str, str]:
    """Returns the generated tables of a page by their sections' paths."""
    return {
        m[1]: m[2].strip() for m in re.finditer(r"<!-- keys: (\S+) -->\n(.*?)<!-- end -->", text, re.DOTALL)
    }


def test_each_section_of_the_configuration_has_its_table_and_no_other_has() -> None:
    found = blocks(CONFIGURATION.read_text())

    assert list(found) == [path for path, _ in all_sections()]


@pytest.mark.parametrize(("path", "model"), list(all_sections()), ids=[path for path, _ in all_sections()])
def test_a_sections_table_is_what_the_models_say(path: str, model: type[BaseModel]) -> None:
    assert blocks(CONFIGURATION.read_text()).get(path) == table(path, model), (
        "write it anew: python -m tests.test_docs"
    )


def test_every_example_of_a_configuration_loads(tmp_path: Path) -> None:
    examples = [
        block
        for page in PAGES
        for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
        if "source:" in block and "destination:" in block
    ]

    assert len(examples) >= 4
    for number, example in enumerate(examples):
        path = tmp_path / f"{number}.yaml"
        path.write_text(example)
        assert load_run(str(path))


# The command line.


def options() -> list[argparse.Action]:
    return [action for action in parser()._actions if "--help" not in action.option_strings]


@pytest.mark.parametrize("option", options(), ids=lambda option: option.option_strings[-1])
def test_every_option_stands_in_the_documentation_as_help_has_it(option: argparse.Action) -> None:
    page = CONFIGURATION.read_text()
    name = option.option_strings[-1]
    shown = f"{name} {option.metavar}" if option.metavar else name

    assert option.help
    assert f"| `{shown}` | {option.help} |" in page


def test_no_option_is_documented_that_there_is_not() -> None:
    looking = [action for verb in ("status", "runs") for action in looking_parser(verb)._actions]
    known = {name for option in (*options(), *looking) for name in option.option_strings}
    elsewhere = {"--db", "--host", "--port"}  # the emulator's
    texts = (page.read_text() for page in (README, CONFIGURATION, EXIT_CODES, DOCS / "sources.md"))
    commands = "\n".join(line for text in texts for line in text.splitlines() if "run_backfill.py" in line)

    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", commands)) - known - elsewhere <= {"--num_workers"}


# Exit codes and the report.


def codes_in(page: Path) -> dict[int, str]:
    rows = re.findall(r"^\| ([0-9/ ]+) \| ([^|]+) \|", page.read_text(), re.MULTILINE)
    return {int(code): meaning.strip() for codes, meaning in rows for code in codes.split("/")}


@pytest.mark.parametrize("page", [README, EXIT_CODES], ids=lambda page: page.name)
def test_a_page_lists_the_exit_codes_that_there_are(page: Path) -> None:
    assert set(codes_in(page)) == {int(code) for code in ExitCode}


def test_help_lists_the_exit_codes_with_the_words_of_the_pages() -> None:
    epilog = parser().format_help().split("exit codes:", 1)[1]
    found = {
        int(code): meaning.strip()
        for codes, meaning in re.findall(r"(?:^|\s{2,})(\d+(?:/\d+)*) ([a-z](?:\S| (?! ))*)", epilog)
        for code in codes.split("/")
    }

    assert found == codes_in(README) == codes_in(EXIT_CODES)


def keys(report: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yields the path of each value of a report that is no section itself."""
    free = {"by_reason", "by_status", "by_endpoint", "alterations"}  # what stands below is named by the data
    for name, value in report.items():
        if isinstance(value, dict) and name not in free:
            yield from keys(value, f"{path}{name}.")
        else:
            yield f"{path}{name}"


@pytest.fixture
def dry_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> dict[str, Any]:
    monkeypatch.chdir(ROOT)
    overrides = [f"run.state={tmp_path}", "run.id=dry"]
    assert run("configs/local.yaml", overrides=overrides, dry_run=True) == 0
    report: dict[str, Any] = orjson.loads((tmp_path / "dry" / "report.json").read_bytes())
    return report


def test_every_key_of_the_report_is_documented(dry_run: dict[str, Any]) -> None:
    text = EXIT_CODES.read_text()
    documented = set(re.findall(r"^\| `([a-z_.]+)` \|", text, re.MULTILINE))

    assert set(keys(dry_run)) - documented == set()
    assert documented - set(keys(dry_run)) <= {"emulator_store"} | {reason.value for reason in Reason} | {
        "refused_by_service",
        "unisolated",
    }


def test_every_reason_of_a_dead_letter_is_documented() -> None:
    text = EXIT_CODES.read_text()

    assert not [reason.value for reason in Reason if f"| `{reason.value}` |" not in text]


# Commands and links.


def commands() -> list[str]:
    """The commands of README's sh blocks, without comments and prompts."""
    found = re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL)
    lines = (line.split("#", 1)[0].strip() for block in found for line in block.splitlines())
    return [line for line in lines if line]


def test_every_command_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    unknown = []
    for command in commands():
        words = [word for word in shlex.split(command) if "=" not in word or word.startswith("-")]
        words = words[1:] if words[:1] == ["export"] else words
        if not words or words[0] in ("cp", "zcat", ".", "git", "cd"):
            continue
        known = (
            words[0] == "make" and set(words[1:]) <= targets
            if words[0] == "make"
            else words[0] == "python" and (words[1] == "-m" or (ROOT / words[1]).exists())
        )
        unknown += [] if known else [command]

    assert not unknown


def test_the_readme_begins_with_the_two_commands() -> None:
    assert commands()[:2] == ["make run", "make test"]


def test_the_configuration_of_the_readme_passes_a_dry_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    example = re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)[0]
    path = tmp_path / "mine.yaml"
    path.write_text(example)
    monkeypatch.chdir(ROOT)
    mine = "sample/events/dt={date}/*.json.gz"
    dates = "source.dates={from: 2024-03-01, to: 2024-03-02}"
    overrides = [f"source.uri={mine}", dates, f"run.state={tmp_path}", "run.allow_dead_letters=100"]

    assert run(str(path), overrides=overrides, dry_run=True) == 0
    assert "Dry run: everything was read and validated, nothing was sent." in capfd.readouterr().out


def test_help_starts() -> None:
    done = subprocess.run(
        [sys.executable, "run_backfill.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0
    assert done.stdout == parser().format_help()


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)

    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_module_that_a_page_names_is_there(page: Path) -> None:
    code = "mixpanel_http|source_formats|record_maps|mixpanel_spool|transforms|pipelines"
    named = re.findall(rf"`((?:{code}|configs|sample|docs)/[\w/.-]+\.\w+)`", page.read_text())

    assert not [name for name in named if not (ROOT / name).exists()]


def write_tables() -> None:
    """Writes the tables of docs/configuration.md anew."""
    text = CONFIGURATION.read_text()
    for path, model in all_sections():
        before, begin, rest = text.partition(f"<!-- keys: {path} -->\n")
        text = f"{before}{begin}{table(path, model)}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"
    CONFIGURATION.write_text(text)


if __name__ == "__main__":
    write_tables()
