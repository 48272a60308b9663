"""The house: which way imports point, what the packages are called, and what travels to a worker."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import PATIENCE_S

ROOT = Path(__file__).resolve().parent.parent
RULES = ("mixpanel_http", "source_formats", "record_maps")
WORKER_PACKAGES = (*RULES, "transforms", "pipelines")
PACKAGES = (*WORKER_PACKAGES, "record_maps.dialects", "mixpanel_emulator", "mixpanel_spool")
NOT_RELEASED = ("tests", "benchmarks", "sample")
OURS = frozenset({*PACKAGES, *NOT_RELEASED, "run_backfill", "setup"})

# What each part may import of the project, itself aside.
ARROWS = {
    "mixpanel_http": frozenset[str](),
    "source_formats": frozenset[str](),
    "record_maps": frozenset({"mixpanel_http"}),
    "transforms": frozenset(RULES),
    "pipelines": frozenset({*RULES, "transforms", "mixpanel_emulator"}),
    "run_backfill": frozenset({*RULES, "transforms", "pipelines", "mixpanel_emulator"}),
    "mixpanel_emulator": frozenset[str](),
    "mixpanel_spool": frozenset[str](),
}

# Neither made by hand nor part of what is released.
NOT_OURS = shutil.ignore_patterns(
    *(".git", ".venv*", ".*_cache", ".hypothesis", ".backfill", ".bench"),
    *("__pycache__", "*.egg-info", "build", "dist", "*.so"),
)


def _files(pattern: str, root: Path = ROOT) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(root):
        ignored = NOT_OURS(folder, [*subfolders, *names])
        subfolders[:] = sorted(set(subfolders) - ignored)
        for name in sorted(set(names) - ignored):
            path = Path(folder, name)
            if path.match(pattern):
                yield path


def _sources(part: str) -> list[Path]:
    if (ROOT / f"{part}.py").exists():
        return [ROOT / f"{part}.py"]
    return list(_files("*.py", ROOT / part))


def _imports(path: Path) -> Iterator[str]:
    """Top-level names of all modules that a file imports, at its head or inside a function."""
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} has a relative import"
            yield (node.module or "").split(".")[0]


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _modules_loaded_by(*modules: str) -> set[str]:
    """Top-level names of everything that a new interpreter has loaded after importing some modules."""
    script = f"import sys, {', '.join(modules)}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("part", ARROWS)
def test_imports_point_one_way(part: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in _sources(part)
        for name in _imports(path)
        if name in OURS - ARROWS[part] - {part}
    }

    assert not wrong


@pytest.mark.parametrize("part", [*RULES, "mixpanel_emulator", "mixpanel_spool"])
def test_only_the_steps_and_the_jobs_know_beam(part: str) -> None:
    assert not [path for path in _sources(part) if "apache_beam" in _imports(path)]


@pytest.mark.parametrize("part", ARROWS)
def test_nobody_sends_with_requests(part: str) -> None:
    # It turns a redirected POST into an empty GET, and lets .netrc replace our credentials.
    assert not [path for path in _sources(part) if "requests" in _imports(path)]


def test_a_worker_loads_nothing_of_the_emulator() -> None:
    modules = [_module_name(path) for part in WORKER_PACKAGES for path in _sources(part)]

    assert not _modules_loaded_by(*modules) & {"mixpanel_emulator", "starlette", "uvicorn", "run_backfill"}


def test_the_rules_load_without_beam() -> None:
    modules = [_module_name(path) for part in RULES for path in _sources(part)]

    assert "apache_beam" not in _modules_loaded_by(*modules)


def test_the_command_line_loads_without_beam() -> None:
    assert "apache_beam" not in _modules_loaded_by("run_backfill")


@pytest.mark.parametrize("path", list(_files("__init__.py")), ids=_module_name)
def test_an_init_file_holds_a_docstring_only(path: Path) -> None:
    body = ast.parse(path.read_bytes()).body

    assert len(body) == 1
    assert ast.get_docstring(ast.Module(body, type_ignores=[]))


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "base", "common", "misc"}

    assert not [path for path in _files("*.py") if empty & {path.stem, path.parent.name}]


def test_no_package_hides_one_of_mixpanels_own() -> None:
    assert not {"mixpanel", "mixpanel_api"} & {path.name.removesuffix(".py") for path in ROOT.iterdir()}


def test_every_package_has_its_place_in_the_house() -> None:
    packages = {_module_name(path) for path in _files("__init__.py")}

    assert {name for name in packages if name.split(".")[0] not in NOT_RELEASED} == set(PACKAGES)


def test_the_sdist_holds_what_a_worker_needs_and_no_more(tmp_path: Path) -> None:
    project = _copy_of_the_project(tmp_path)
    # As Beam builds it for its workers.
    subprocess.run(
        [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(project)],
        check=True,
        capture_output=True,
        timeout=PATIENCE_S,
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        held = {member.name.split("/", 1)[1] for member in tar if member.isfile()}

    assert archive.name == "mixpanel_backfill-0.1.0.tar.gz"
    about = {name for name in held if name.startswith("mixpanel_backfill.egg-info/")}
    code = {str(path.relative_to(ROOT)) for part in (*PACKAGES, "run_backfill") for path in _sources(part)}
    typed = {str(path.relative_to(ROOT)) for name in ("py.typed", "*.pyi") for path in _files(name)}
    native = {str(path.relative_to(ROOT)) for path in _files("*", ROOT / "native")}
    tools = {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg", "setup.py"}
    assert held - about == code | typed | native | tools


def test_a_package_holds_nothing_that_the_sdist_would_lose() -> None:
    lost = [
        path
        for part in PACKAGES
        for path in _files("*", ROOT / part)
        if path.suffix not in (".py", ".pyi") and path.name != "py.typed"
    ]

    assert not lost, "name these in setup.py's package_data, and here"


def test_no_text_names_a_folder_of_the_machine_it_was_written_on() -> None:
    machine = re.compile(rb"(?<![\w.~$}*-])/(?:root|home|Users|work|mnt|workspace)/[\w.]")

    found = [
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in _files("*")
        if path.suffix != ".gz"
        for match in machine.finditer(path.read_bytes())
    ]

    assert not found


def _copy_of_the_project(folder: Path) -> Path:
    # A build writes beside setup.py, and other tests run at the same time.
    project = folder / "project"
    shutil.copytree(ROOT, project, ignore=NOT_OURS)
    return project
