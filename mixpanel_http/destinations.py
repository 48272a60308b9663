"""Where records go, and as whom: Mixpanel's hosts, and what other endpoint records may be sent to."""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from mixpanel_http.secret_refs import SecretRef

Region = Literal["us", "eu", "in"]
# https://docs.mixpanel.com/reference/overview
HOSTS: Final[dict[Region, str]] = {
    "us": "https://api.mixpanel.com",
    "eu": "https://api-eu.mixpanel.com",
    "in": "https://api-in.mixpanel.com",
}


class EndpointRefused(ValueError):
    """A destination that records must not be sent to."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where events go and as whom. Holds references to secrets, no secret.

    Attributes:
        base_url: scheme and host, without a path.
        project_token: the token's reference, or None with a service account.
        username: the service account's user name, by reference.
        secret: the service account's secret, by reference.
        project_id: the project, needed with a service account.
    """

    base_url: str
    project_token: SecretRef | None = None
    username: SecretRef | None = None
    secret: SecretRef | None = None
    project_id: str | None = None

    def token(self) -> str:
        """Returns the project's token, for endpoints that want it in each record.

        Raises:
            SecretUnavailable: if the reference leads nowhere.
            ValueError: if there is none: a service account cannot stand in for it.
        """
        if self.project_token is None:
            raise ValueError("profiles and groups need the project's token")
        return self.project_token.resolve()

    def authorization(self) -> str:
        """Returns the value of the Authorization header (https://docs.mixpanel.com/reference/project-token).

        Raises:
            SecretUnavailable: if a reference leads nowhere.
        """
        if self.project_token is not None:
            pair = f"{self.project_token.resolve()}:"
        elif self.username is not None and self.secret is not None:
            pair = f"{self.username.resolve()}:{self.secret.resolve()}"
        else:
            raise ValueError("a destination needs a project token or a service account")
        return "Basic " + base64.b64encode(pair.encode()).decode()


def check_endpoint(url: str, allow_any: bool) -> str:
    """Returns an endpoint's base URL if records may go there.

    Mixpanel's own hosts over https, and this machine's loopback addresses; any other only if allowed by name.

    Raises:
        EndpointRefused: with what is wrong.
    """
    if any(ord(c) <= 32 or ord(c) == 127 for c in url):
        raise EndpointRefused("an endpoint must have no white space or control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise EndpointRefused(f"no usable URL: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise EndpointRefused("an endpoint must hold no user name or password; give credentials by reference")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EndpointRefused("an endpoint looks like https://HOST[:PORT]")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise EndpointRefused("an endpoint is a host without a path or query")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    base = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
    if base in HOSTS.values() or _is_loopback(parts.hostname):
        return base
    if not allow_any:
        raise EndpointRefused(
            f"{parts.hostname} is neither Mixpanel's nor this machine; "
            "set destination.allow_any_endpoint: true to mean it"
        )
    if parts.scheme != "https":
        raise EndpointRefused("records and credentials leave this machine over https only")
    return base


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
