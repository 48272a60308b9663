"""Standard output and error as they may be: closed, a pipe that nobody reads, a full disk, not of UTF-8."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Final

_STREAMS: Final = ("stdin", "stdout", "stderr")


def hold_streams() -> None:
    """Puts the null device where a standard stream is closed, and lets no character end a print.

    A file of the run would otherwise get the stream's number, and what libraries print would go into it.
    """
    for number, name in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def say(line: str) -> None:
    """Says a line on stderr, if anybody can hear it."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def print_out(text: str, *, is_json: bool = False) -> None:
    """Prints on stdout; a reader that has gone away, as `head` does, changes nothing about the run.

    Args:
        text: what to print.
        is_json: whether it is JSON, which is in UTF-8 whatever a terminal takes.
    """
    try:
        if is_json:
            sys.stdout.flush()
            sys.stdout.buffer.write(text.encode())
        else:
            sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            say(f"error: stdout: cannot be written: {error.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
