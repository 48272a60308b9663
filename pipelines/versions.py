"""What must be the same for launcher and workers: another Python, Beam or project would not do the same."""

from __future__ import annotations

import hashlib
import importlib.metadata
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from mixpanel_http.insert_ids import RECIPE

VERSION: Final = "0.1.0"  # setup.py says the same; a test holds both together
PACKAGES: Final = ("mixpanel_http", "source_formats", "record_maps", "transforms", "pipelines")
_ADVICE: Final = (
    "build the workers' image from the project that the launcher runs (docs/scale.md), or leave the image "
    "out and let Beam ship the project with --setup_file=./setup.py"
)


class WorkerRefused(RuntimeError):
    """A worker is not what the launcher is; the message says in what they differ."""


@cache
def versions_here() -> Mapping[str, str]:
    """Returns the versions in this process, by name."""
    return {
        "mixpanel-backfill": VERSION,
        "mixpanel-backfill's sources": _digest(),
        "apache-beam": importlib.metadata.version("apache-beam"),
        "Python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "the recipe of $insert_id": str(RECIPE),
    }


def check_worker(launcher: Mapping[str, str], here: Mapping[str, str] | None = None) -> None:
    """Refuses to work where this process differs from the launcher.

    Raises:
        WorkerRefused: with every difference, and what to do.
    """
    found = versions_here() if here is None else here
    differing = [
        f"{name}: the launcher has {value}, this worker {found.get(name, 'none')}"
        for name, value in launcher.items()
        if found.get(name) != value
    ]
    if differing:
        raise WorkerRefused(f"{'; '.join(differing)}; {_ADVICE}")


def _digest() -> str:
    """Returns what changes with any line of the code that workers run."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
