"""A file's content, of which the beginning may be looked at, and the end says what went wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from transforms.compression import DamagedFile
from transforms.pinned_files import Changed
from transforms.storage import storage_errors


class Content:
    """A whole file's content, as (offset, bytes).

    What goes wrong ends it quietly and is kept as `trouble`: who holds something back from what came before
    can give it out first.
    """

    def __init__(self, chunks: Iterable[tuple[int, bytes]]) -> None:
        self.trouble: BaseException | None = None
        self._chunks = self._until_trouble(chunks)
        self._seen: list[tuple[int, bytes]] = []

    def head(self, size: int) -> bytes:
        """Returns the first bytes: `size` of them, or all that there are."""
        while sum(len(chunk) for _, chunk in self._seen) < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._seen.append(chunk)
        return b"".join(chunk for _, chunk in self._seen)[:size]

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Yields everything, once."""
        while self._seen:
            yield self._seen.pop(0)
        yield from self._chunks

    def _until_trouble(self, chunks: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        try:
            yield from chunks
        except (DamagedFile, Changed) as error:
            self.trouble = error
        except storage_errors() as error:
            self.trouble = error
