"""The configuration of several jobs: what they share, and how mistakes in one are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.config_jobs import JobsConfig
from pipelines.config_reading import ConfigError, load_run

SHARED = "destination: {emulator: true}\n"
ONE = "jobs: [{name: a, source: {uri: x.json}}]\n"


def loaded(tmp_path: Path, text: str, *overrides: str) -> JobsConfig:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    config = load_run(str(path), overrides)
    assert isinstance(config, JobsConfig)
    return config


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("jobs: []\n", "jobs: List should have at least 1 item after validation, not 0"),
        ("jobs: [{source: {uri: x}}]\n", "jobs.0.name: is required"),
        ("jobs: [{name: a, source: {url: x}}]\n", "jobs.0.source.url: unknown key; did you mean uri?"),
        ("jobs: [{name: a/b, source: {uri: x}}]\n", "jobs.0.name: must be letters, digits"),
        ("jobs: [{name: report.json, source: {uri: x}}]\n", "jobs.0.name: must not end with .json or .db"),
        (ONE + "source: {uri: x}\n", "configuration: source: each of the jobs has its own"),
        (ONE + "limit: {}\n", "limit: unknown key; did you mean limits?"),
        (
            "jobs: [{name: a, source: {uri: x}}, {name: a, source: {uri: y}}]\n",
            "configuration: jobs: the name a stands twice",
        ),
        (
            "jobs: [{name: a, source: {uri: x}, recent_first: 30d}]\n",
            "jobs.0: recent_first needs {date} in every uri",
        ),
        (
            "jobs: [{name: a, source: {uri: 'd={date}/x'}, recent_first: 30}]\n",
            "jobs.0.recent_first: must be a number of days, like 30d",
        ),
        (
            ONE + "beam: {runner: DataflowRunner}\n",
            "configuration: jobs.0: run.state must be a folder that DataflowRunner's workers reach",
        ),
    ],
)
def test_a_mistake_in_jobs_is_told_by_its_path(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as told:
        loaded(tmp_path, text + SHARED)

    assert expected in "\n".join(told.value.errors)


def test_an_override_reaches_a_job_by_its_number(tmp_path: Path) -> None:
    config = loaded(tmp_path, ONE + SHARED, "jobs.0.source.uri=y.json", "limits.in_flight=3")
    assert (config.jobs[0].source.uri, config.limits.in_flight) == ("y.json", 3)
    with pytest.raises(ConfigError, match=r"--set jobs.7.name: 7 has no keys"):
        loaded(tmp_path, ONE + SHARED, "jobs.7.name=b")
    with pytest.raises(ConfigError, match=r"--set jobs.name: jobs has no keys"):
        loaded(tmp_path, ONE + SHARED, "jobs.name=b")


def test_a_job_may_have_limits_of_its_own(tmp_path: Path) -> None:
    text = "jobs: [{name: a, source: {uri: x}, limits: {in_flight: 2}}, {name: b, source: {uri: y}}]\n"
    config = loaded(tmp_path, text + SHARED)

    assert [config.config_of(job).limits.in_flight for job in config.jobs] == [2, 16]
