"""What of a service's words may be told where everybody reads: those that its contract has."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

LONGEST_TOLD: Final = 200
ELSE: Final = "…"

# Errors that Mixpanel documents for ingestion: https://docs.mixpanel.com/reference/import-events, and
# /troubleshooting/errors/.
_DOCUMENTED: Final = (
    "some data points in the request failed validation",
    "invalid service account credentials",
    "invalid project token",
    "request exceeds max limit of bytes events",
    "project exceeded rate limits please retry the request with exponential backoff",
)
_WORDS: Final = frozenset(
    word
    for sentence in (*_DOCUMENTED, *(status.phrase for status in HTTPStatus))
    for word in sentence.lower().split()
)


def contract_words(said: str) -> str:
    """Returns what a service said, without words that are not its contract's: they may be values of a record.

    Nothing where less than half of it is known: a few words out of another sentence would say something else.

    >>> contract_words("Invalid credentials for ann@acme.example"), contract_words("user Ann unknown")
    ('Invalid credentials for …', '')
    """
    words = [word if word.strip(".,:;").lower() in _WORDS else ELSE for word in said.split()]
    if 2 * words.count(ELSE) > len(words):
        return ""
    told = [word for i, word in enumerate(words) if word != ELSE or words[i - 1 : i] != [ELSE]]
    return " ".join(told)[:LONGEST_TOLD]
