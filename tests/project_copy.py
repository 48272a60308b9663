"""A copy of the project to build from: a build writes beside setup.py, and other tests run meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def copy_sources(folder: Path) -> Path:
    """Copies what packages are built from, and returns the folder."""
    ignored = shutil.ignore_patterns(
        ".*", "__pycache__", "*.egg-info", "*.so", "build", "dist", "tests", "requirements"
    )
    shutil.copytree(ROOT, folder, ignore=ignored)
    return folder
