"""What a release is made of: locked, listed, built the same twice; and nothing is fetched when it runs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mixpanel_http import event_scan
from tests.processes import PATIENCE_S
from tests.project_copy import copy_sources

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {"run": (), "gcp": ("gcp",), "test": ("test",)}
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+?)(?: ;.*?)? ?\\$", re.MULTILINE)


def locked(name: str) -> dict[str, set[str]]:
    """Returns the locked versions of each package."""
    found: dict[str, set[str]] = {}
    for package, version in _PINNED.findall((ROOT / "requirements" / f"{name}.txt").read_text()):
        found.setdefault(canonicalize_name(package), set()).add(version)
    return found


@cache
def asked() -> tuple[list[str], dict[str, list[str]]]:
    """Returns what setup.py asks for, and what for each extra."""
    script = (
        "import setuptools, json; setuptools.setup = lambda **k: print(json.dumps(["
        "k['install_requires'], k['extras_require']])); exec(open('setup.py').read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    own, extras = json.loads(done.stdout)
    return own, extras


def wanted(extras: tuple[str, ...]) -> list[Requirement]:
    """Returns what setup.py asks for, with extras."""
    own, extra = asked()
    return [Requirement(text) for text in [*own, *(text for name in extras for text in extra[name])]]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_a_version_of_each_package_that_setup_py_allows(name: str) -> None:
    versions = locked(name)
    for requirement in wanted(LOCKS[name]):
        pinned = versions.get(canonicalize_name(requirement.name))
        assert pinned, f"{requirement} is not locked: make lock"
        assert all(requirement.specifier.contains(version) for version in pinned), requirement


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_hashes_and_no_lock_names_where_it_comes_from(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == sum(map(len, locked(name).values())) > 50
    assert all("--hash=sha256:" in block for block in blocks)
    assert not re.search(r"://|--index|--find-links|/opt/|/tmp/", text)


@pytest.mark.soak  # it builds twice
def test_wheel_and_sdist_are_the_same_bytes_when_built_twice(tmp_path: Path) -> None:
    digests = [
        build(tmp_path / name, mtime) for name, mtime in (("one", 1_600_000_000), ("two", 1_700_000_000))
    ]

    assert digests[0] == digests[1]
    assert sorted(name.rpartition(".")[2] for name in digests[0]) == ["gz", "whl"]


@pytest.mark.soak  # it builds twice, and runs
@pytest.mark.parametrize("compiler", ["cc", "false"])
def test_a_bare_worker_installs_the_sdist_with_a_compiler_and_without(tmp_path: Path, compiler: str) -> None:
    copy_sources(tmp_path / "sources")
    bare, clean = tmp_path / "bare", {**os.environ, "PYTHONPATH": "", "CC": compiler}
    build_in(tmp_path / "sources", "--sdist")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    python = str(bare / "bin" / "python")
    own = next((bare / "lib").glob("python*")) / "site-packages"
    (own / "of_others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (sdist,) = (tmp_path / "sources" / "dist").iterdir()
    install = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--ignore-installed")
    subprocess.run(
        [python, "-m", "pip", "install", *install, "--prefix", str(bare), str(sdist)],
        check=True,
        env=clean,
        cwd=tmp_path,
        capture_output=True,
    )
    script = (
        "import json, sys; from mixpanel_http import event_scan; from run_backfill import main; "
        "print(event_scan.IS_BUILT, event_scan.__file__, file=sys.stderr); raise SystemExit(main())"
    )
    changes = (
        "--set",
        f"run.state={tmp_path}/state",
        "--set",
        f"source.uri={ROOT}/sample/events/dt={{date}}/*",
    )
    done = subprocess.run(
        [python, "-c", script, "--config", str(ROOT / "configs" / "local.yaml"), "--json", *changes],
        env=clean,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["books"]["balanced"]
    built, place = done.stderr.split(maxsplit=2)[:2]
    assert built == str(compiler == "cc")
    assert Path(place).is_relative_to(bare)


def test_where_there_is_a_compiler_the_extension_is_built() -> None:
    compiler = str(sysconfig.get_config_var("CC")).split()[0]
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not (shutil.which(compiler) and header.exists()):
        pytest.skip("no compiler, or none of Python's headers")

    assert event_scan.IS_BUILT


def build(folder: Path, mtime: int) -> dict[str, str]:
    """Builds a copy of the project whose files have another time, and returns the packages' digests."""
    copy_sources(folder)
    for path in folder.rglob("*"):
        os.utime(path, (mtime, mtime))
    build_in(folder)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "dist").iterdir()}


def build_in(folder: Path, *what: str) -> None:
    """Builds packages in a copy of the project."""
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--quiet", *what, str(folder)],
        check=True,
        capture_output=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
    )


OFFLINE = """
import socket, sys
_connect = socket.socket.connect
def connect(self, address):
    of_internet = self.family in (socket.AF_INET, socket.AF_INET6)
    if of_internet and address[0] not in ("127.0.0.1", "::1", "localhost"):
        print("fetched from", address, file=sys.stderr); sys.stderr.flush()
        import os; os._exit(99)
    return _connect(self, address)
socket.socket.connect = connect
_look_up = socket.getaddrinfo
def look_up(host, *rest, **named):
    if host not in (None, "127.0.0.1", "::1", "localhost", socket.gethostname()):
        print("looked up", host, file=sys.stderr); sys.stderr.flush()
        import os; os._exit(98)
    return _look_up(host, *rest, **named)
socket.getaddrinfo = look_up
sys.argv = ["run_backfill.py", *sys.argv[1:]]
from run_backfill import main
raise SystemExit(main())
"""


def test_a_run_into_the_emulator_fetches_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-c", OFFLINE, "--config", str(ROOT / "configs" / "local.yaml")),
            *("--set", f"run.state={tmp_path}", "--set", f"source.uri={ROOT}/sample/events/dt={{date}}/*"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.soak  # it is the work of a tool that we do not change
def test_the_list_of_parts_names_every_locked_package(tmp_path: Path) -> None:
    listed = tmp_path / "sbom.json"
    tool = Path(sys.executable).parent / "cyclonedx-py"
    subprocess.run(
        [
            *(str(tool), "requirements", "requirements/run.txt", "--output-reproducible"),
            *("--of", "JSON", "-o", str(listed)),
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    content = json.loads(listed.read_text())

    assert content["bomFormat"] == "CycloneDX"
    named = {canonicalize_name(part["name"]) for part in content["components"]}
    assert named >= set(locked("run"))
