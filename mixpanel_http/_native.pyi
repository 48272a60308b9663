"""What the optional C extension offers: the passes over a block's bytes that cost most.

Where it could not be built, `event_scan` is not used; whatever it does is also done by Python.
"""

from collections.abc import Sequence
from typing import final

INTERFACE: int  # of what is below; mixpanel_http/compiled.py takes only that which it knows

class Scanner:
    """Tells which lines of a block of NDJSON certainly are events that keep all rules, or break one.

    Args:
        identity_events: event names that are refused, by the simplified identity model, or not cleared.
        disallowed_ids: ids that are refused, in lower case, in whatever case they come.
        most_members: properties of an event, and keys or elements of a container in it.
        most_nesting: containers in the value of a property.
        most_bytes: of a line.
        longest_insert_id: characters of `$insert_id`.
        earliest_s, earliest_ms: the earliest `time`, in either unit.

    Raises:
        ValueError: if there are too many or too long names.
    """

    def __init__(
        self,
        *,
        identity_events: Sequence[bytes],
        disallowed_ids: Sequence[bytes],
        most_members: int,
        most_nesting: int,
        most_bytes: int,
        longest_insert_id: int,
        earliest_s: int,
        earliest_ms: int,
    ) -> None: ...
    def scan(self, block: bytes, latest_s: int, simplified: bool, /) -> Scan:
        """Returns what is known of a block's lines; other threads run meanwhile.

        Args:
            block: whole lines, the last with or without its newline.
            latest_s: `time` must be before it, in seconds or milliseconds.
            simplified: whether `$user_id` or `$device_id` may stand in for `distinct_id`.
        """

@final
class Scan:
    """What is known of a block's lines.

    Attributes:
        count: lines.
        suspects: the lines of which nothing is known.
        without_id: of the others, those without `$insert_id`.
        refused: the lines that certainly break a rule, by its name in `event_scan.FLAWS`; of several the
            one that the judge finds first. They are no suspects.
    """

    count: int
    suspects: list[int]
    without_id: list[int]
    refused: dict[str, list[int]]

    def line(self, index: int, /) -> bytes:
        """Returns a line: as it is, an event without the white space around it."""

    def broken(self, index: int, /) -> tuple[int, bytes | None]:
        """Returns of a line that is refused as `not_utf8` the first byte that is none, and in which property.

        Raises:
            ValueError: if it is refused for something else.
        """

    def contents(self) -> list[bytes | None]:
        """Returns `canonical` of each line in `without_id`."""

    def body(
        self, ids: list[str | None], judged: list[bytes | None], default_ip: bool, /
    ) -> tuple[bytes, int]:
        """Returns the lines with what they lack, joined by newlines, and how many got an `ip`.

        Args:
            ids: of each line in `without_id` its `$insert_id`, or None to leave the line out.
            judged: of each suspect what to put in its place, or None to leave it out.
            default_ip: whether lines without an `ip` get `"ip":0`.
        """

def canonical(text: bytes, /) -> bytes | None:
    """Returns `insert_ids.canonical` of a text, or None where that takes a closer look."""

def are_json(lines: list[bytes], /) -> list[bool]:
    """Returns of each text whether it certainly is JSON that every decoder takes; others may be, too."""

def letters(
    block: bytes,
    places: list[tuple[int, int, int]],
    indices: list[int],
    openings: list[bytes],
    closings: list[bytes],
    contents: list[bytes | None],
    /,
) -> bytes:
    """Returns `transforms.letters.letters_by_python` of the same.

    Raises:
        ValueError: if the block has fewer lines than it has places.
        IndexError: if there is no such line, or a list is shorter than the indices.
    """
