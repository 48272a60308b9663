"""Finishes, and uploads, what processes that are gone have left: `python -m mixpanel_spool FOLDER`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mixpanel_spool.shipping import Shipper
from mixpanel_spool.spool_file import finish_abandoned


def main(argv: Sequence[str] | None = None) -> int:
    """Does what the arguments say, and returns 0, or 1 where something is left to do."""
    parser = argparse.ArgumentParser(
        prog="python -m mixpanel_spool",
        description="Finishes the spool files of processes that are gone, so that a backfill sees them. "
        "Files in use are left alone.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="the spool's folder, or its staging folder")
    parser.add_argument(
        "--to", metavar="URI", help="upload finished files there, s3:// or gs://, and remove them here"
    )
    arguments = parser.parse_args(argv)
    folder = Path(arguments.folder)
    try:
        print(f"{sum(1 for _ in finish_abandoned(folder)):,} files finished")
        if arguments.to:
            print(f"{Shipper(arguments.to, folder, {}).ship():,} files uploaded")
    except Exception as error:  # noqa: BLE001 - storage libraries raise what they like
        print(f"error: {folder}: {type(error).__name__}; what is left stays there", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
