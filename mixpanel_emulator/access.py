"""Who may send: the ways to authenticate, and what is accepted of each."""

import base64
from collections.abc import Mapping
from typing import NamedTuple

from mixpanel_emulator.settings import Settings


class Credentials(NamedTuple):
    """What an Authorization header holds: a user and a password, or a bearer token as the user."""

    user: str
    password: str
    bearer: bool = False


def read_credentials(header: str) -> Credentials | None:
    """Returns the credentials of an Authorization header, None where it has none.

    A Basic value may be base64 or plain text (SA).

    >>> read_credentials("Basic dG9rZW46")
    Credentials(user='token', password='', bearer=False)
    """
    scheme, _, value = header.strip().partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer" and value:
        return Credentials(value, "", bearer=True)
    if scheme.lower() != "basic":
        return None
    user, colon, password = _basic_text(value).partition(":")
    return Credentials(user, password) if colon else None  # E401: a header built without the colon is refused


def may_import(settings: Settings, credentials: Credentials | None, query: Mapping[str, str]) -> bool:
    """Returns whether these credentials may write and read with this query."""
    if credentials is None or not credentials.user:
        return False
    if credentials.bearer:
        return not settings.tokens or credentials.user in settings.tokens
    if credentials.password:
        return _service_account(settings, credentials, query)
    return not settings.tokens or credentials.user in settings.tokens


def knows_token(settings: Settings, token: str) -> bool:
    """Returns whether a token inside a record belongs to the project."""
    return not settings.tokens or token in settings.tokens


def _service_account(settings: Settings, credentials: Credentials, query: Mapping[str, str]) -> bool:
    if not query.get("project_id"):
        return False  # E401
    pair = f"{credentials.user}:{credentials.password}"
    return not settings.service_accounts or pair in settings.service_accounts


def _basic_text(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode()
    except ValueError:  # no base64, or no text in it
        return value
