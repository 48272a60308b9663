"""Reads secrets from Google's and Amazon's secret managers. Their clients load where they are used."""

from __future__ import annotations

import os
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

# Where a stand-in of Google's Secret Manager listens, on this machine only.
GCP_STANDIN: Final = "SECRET_MANAGER_EMULATOR_HOST"
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
TIMEOUT_S: Final = 30.0


class NoSecret(RuntimeError):
    """A secret manager gave no secret; the message says why, and holds nothing of one."""


def read_gcp_secret(name: str) -> str:
    """Returns a secret of Google's Secret Manager.

    Args:
        name: `projects/PROJECT/secrets/SECRET/versions/VERSION`.

    Raises:
        NoSecret: if the extra is not installed, or the manager refuses.
    """
    try:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.secretmanager import SecretManagerServiceClient
    except ImportError:
        raise NoSecret("needs the extra gcp: pip install -e '.[gcp]'") from None
    try:
        client = SecretManagerServiceClient(**_gcp_settings())
        payload = client.access_secret_version(name=name, timeout=TIMEOUT_S).payload.data
    except (GoogleAPIError, GoogleAuthError) as error:
        raise NoSecret(f"Google's Secret Manager gives none: {type(error).__name__}") from None
    return str(payload.decode("utf-8", "strict")).strip()


def read_aws_secret(name: str) -> str:
    """Returns a secret of Amazon's Secrets Manager.

    Args:
        name: the secret's name or ARN; behind a `#` the key, where the secret is a JSON object.

    Raises:
        NoSecret: if the manager refuses, or what it holds has no such key.
    """
    try:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.session import Session
    except ImportError:
        raise NoSecret("needs botocore, which s3fs brings") from None
    secret_id, _, key = name.partition("#")
    # An ARN says where its secret is; else the region is where the SDK's other settings are.
    region = {"region_name": secret_id.split(":")[3]} if secret_id.startswith("arn:") else {}
    try:
        client = Session().create_client("secretsmanager", **region)
        text = str(client.get_secret_value(SecretId=secret_id)["SecretString"])
    except (BotoCoreError, ClientError) as error:
        said = getattr(error, "response", {}).get("Error", {}).get("Code") or type(error).__name__
        raise NoSecret(f"AWS Secrets Manager gives none: {said}") from None
    except KeyError:
        raise NoSecret("is binary; a text is expected") from None
    return _value_of(text, key) if key else text.strip()


def _value_of(text: str, key: str) -> str:
    try:
        values = orjson.loads(text)
    except orjson.JSONDecodeError:
        values = None
    if not isinstance(values, dict) or not isinstance(values.get(key), str):
        raise NoSecret(f"has no text under the key {key}")
    return str(values[key])


def _gcp_settings() -> dict[str, Any]:
    """Returns what makes Google's client ask a stand-in on this machine, if there is one."""
    standin = os.environ.get(GCP_STANDIN)
    if not standin:
        return {}
    if urlsplit(standin).hostname not in _LOOPBACK:
        raise NoSecret(f"{GCP_STANDIN} must name this machine")
    from google.auth.credentials import AnonymousCredentials

    return {
        "transport": "rest",
        "credentials": AnonymousCredentials(),  # type: ignore[no-untyped-call]
        "client_options": {"api_endpoint": standin},
    }
