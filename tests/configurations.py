"""Configurations for tests, how they are loaded, and what is said of mistakes in them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.config import Config
from pipelines.config_reading import ConfigError, load_config

ROOT = Path(__file__).resolve().parent.parent
CANARY = "canary7f3a9e"
LOCAL = "source: {uri: x.json}\ndestination: {emulator: true}\n"
REMOTE = "source: {uri: x.json}\ndestination:\n  credentials: {project_token: env:T}\n"

Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads a text as a configuration, with overrides."""

    def load(text: str | bytes, *overrides: str) -> Config:
        path = tmp_path / "c.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_config(str(path), overrides)

    return load


def errors_of(load: Load, text: str | bytes, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, *overrides)
    assert str(caught.value) == "\n".join(caught.value.errors)
    return [error.split("c.yaml", 1)[-1] for error in caught.value.errors]


def source(text: str) -> str:
    return f"source: {{{text}}}\ndestination: {{emulator: true}}\n"


def credentials(text: str) -> str:
    return f"source: {{uri: x.json}}\ndestination: {{credentials: {{{text}}}}}\n"


def endpoint(url: str, also: str = "") -> str:
    return f"{REMOTE}  endpoint: {url!r}\n{also}"


SECTION = "must be a section with keys of its own"
DAY = "must be a day that exists, like 2024-01-31"
FOLDER = "names a folder; end it with a pattern, like /*.json or /** for all that is below"
AMOUNT = "must be a count like 100 or a percentage like 1%"
REFERENCE = "a secret is given by reference only: env:NAME, file:PATH, gcp-secret:NAME or aws-secret:NAME"
FINITE = "must be a finite number"
ID = "must be 1 to 100 letters, digits, dots, underscores or hyphens, the first no dot"
