"""Launcher and workers: what must be the same, and what is said where it is not."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from pipelines.ledger import Ledger
from pipelines.state import StateFolder
from pipelines.versions import VERSION, WorkerRefused, check_worker, versions_here

ROOT = Path(__file__).resolve().parent.parent
SETUP = (ROOT / "setup.py").read_text()
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()


def packages() -> list[str]:
    found = re.search(r"PACKAGES = \[(.*?)\]", SETUP, re.DOTALL)
    assert found is not None
    return re.findall(r'"(\w+)"', found[1])


def test_a_worker_like_the_launcher_works() -> None:
    check_worker(versions_here())
    check_worker({})


def test_every_difference_is_told_with_what_to_do(tmp_path: Path) -> None:
    launcher = {**versions_here(), "apache-beam": "2.76.0", "Python": "3.9"}

    with pytest.raises(WorkerRefused) as refused:
        Ledger(StateFolder(str(tmp_path)), versions=launcher).attend()

    told = str(refused.value)
    assert f"apache-beam: the launcher has 2.76.0, this worker {version('apache-beam')}" in told
    assert (
        f"Python: the launcher has 3.9, this worker {sys.version_info.major}.{sys.version_info.minor}" in told
    )
    assert "--setup_file=./setup.py" in told
    assert "mixpanel-backfill" not in told.split("; build")[0]


def test_sources_that_differ_are_another_version() -> None:
    other = {**versions_here(), "mixpanel-backfill's sources": "another"}
    with pytest.raises(WorkerRefused, match="mixpanel-backfill's sources: the launcher has"):
        check_worker(versions_here(), other)


def test_the_project_has_one_version_everywhere() -> None:
    template: dict[str, Any] = json.loads((ROOT / "docker" / "flex-template.json").read_text())
    assert f'version="{VERSION}"' in SETUP
    assert f"mixpanel-backfill:{VERSION}" in DOCKERFILE
    assert template["image"].endswith(f"mixpanel-backfill:{VERSION}")
    assert template["defaultEnvironment"]["sdkContainerImage"] == template["image"]


def test_the_image_is_of_the_beam_that_the_project_takes() -> None:
    beam = re.search(r"^ARG BEAM=(.*)$", DOCKERFILE, re.MULTILINE)
    python = re.search(r"^ARG PYTHON=(.*)$", DOCKERFILE, re.MULTILINE)
    assert beam is not None
    assert python is not None
    assert beam[1] == version("apache-beam")
    assert f'"apache-beam>={beam[1].rpartition(".")[0]},' in SETUP
    lock = (ROOT / "requirements" / "gcp.txt").read_text()
    assert f"apache-beam[gcp]=={beam[1]} " in lock or f"apache-beam=={beam[1]} " in lock
    assert python[1] in ("3.10", "3.11", "3.12", "3.13")


def test_no_image_is_whatever_was_published_last() -> None:
    template = (ROOT / "docker" / "flex-template.json").read_text()
    recipe = re.sub(r"^#.*$", "", DOCKERFILE, flags=re.MULTILINE)
    defaults = dict(re.findall(r"^ARG (\w+)=(.*)$", recipe, re.MULTILINE))
    bases = re.findall(r"^FROM (\S+)", recipe, re.MULTILINE)

    assert "latest" not in recipe + template
    assert bases == ["${TEMPLATE_LAUNCHER}", "${BEAM_IMAGE}", "worker"]
    assert defaults["BEAM_IMAGE"] == "apache/beam_python${PYTHON}_sdk:${BEAM}"
    assert (
        defaults["TEMPLATE_LAUNCHER"] == "scratch"
    )  # has no versions: whoever builds a template names a digest
    assert "TEMPLATE_LAUNCHER=$launcher@sha256:" in (ROOT / "docs" / "scale.md").read_text()


def test_the_image_holds_every_package_that_the_project_has() -> None:
    copied = re.findall(r"^COPY (\w+) (\w+)$", DOCKERFILE, re.MULTILINE)
    assert copied == [(name, name) for name in ["native", *packages()]]


def test_the_template_asks_for_options_that_the_command_line_has() -> None:
    template: dict[str, Any] = json.loads((ROOT / "docker" / "flex-template.json").read_text())
    line = (ROOT / "run_backfill.py").read_text()
    for parameter in template["metadata"]["parameters"]:
        assert f'"--{parameter["name"]}"' in line
