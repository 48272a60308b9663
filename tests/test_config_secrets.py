"""Secrets in configurations: only references are taken, and none is ever shown."""

import pytest

from tests.configurations import (
    CANARY,
    LOCAL,
    REFERENCE,
    REMOTE,
    SECTION,
    Load,
    credentials,
    endpoint,
    errors_of,
    source,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (credentials(f"project_token: {CANARY}"), f"destination.credentials.project_token: {REFERENCE}"),
        (credentials("project_token: 12345678"), f"destination.credentials.project_token: {REFERENCE}"),
        (credentials(f"project_token: [{CANARY}]"), f"destination.credentials.project_token: {REFERENCE}"),
        (
            credentials(f"project_token: 'env: {CANARY}'"),
            f"destination.credentials.project_token: {REFERENCE}",
        ),
        (
            credentials(f"project_token: '${{{CANARY}}}'"),
            f"destination.credentials.project_token: {REFERENCE}",
        ),
        (
            credentials(f"token: {CANARY}, project_token: env:T"),
            "destination.credentials.token: unknown key; "
            "there are project_token, service_account, project_id",
        ),
        (
            credentials(f"service_account: {{username: env:A, secret: {CANARY}}}, project_id: '1'"),
            f"destination.credentials.service_account.secret: {REFERENCE}",
        ),
        (
            f"source: {{uri: x}}\ndestination: {{credentials: {CANARY}}}\n",
            f"destination.credentials: {SECTION}",
        ),
        (f"source: {{uri: x}}\ndestination: {CANARY}\n", f"destination: {SECTION}"),
        (CANARY, ": must hold sections like 'source:' and 'destination:'"),
        (
            endpoint(f"https://u:{CANARY}@api.mixpanel.com"),
            "destination.endpoint: an endpoint must hold no user name or password; "
            "give credentials by reference",
        ),
        (
            source(f"uri: 's3://key:{CANARY}@bucket/x'"),
            "source.uri: holds credentials; give them in storage_options, by reference",
        ),
        (
            LOCAL + f"run: {{state: 's3://key:{CANARY}@bucket/x'}}\n",
            "run.state: holds credentials; give them in storage_options, by reference",
        ),
        (
            source(f"uri: x, storage_options: {{key: K, secret: {CANARY}}}"),
            f"source.storage_options: secret: {REFERENCE}",
        ),
        (
            source(f"uri: x, storage_options: {{token: {CANARY}}}"),
            f"source.storage_options: token: {REFERENCE}",
        ),
        (
            source(f"uri: x, storage_options: {{client_kwargs: {{aws_session_token: {CANARY}}}}}"),
            f"source.storage_options: client_kwargs.aws_session_token: {REFERENCE}",
        ),
        (
            source(f"uri: x, storage_options: {{token: {{private_key: {CANARY}}}}}"),
            f"source.storage_options: token.private_key: {REFERENCE}",
        ),
        (
            source(f"uri: x, storage_options: {{a: [{{password: {CANARY}}}]}}"),
            f"source.storage_options: a.0.password: {REFERENCE}",
        ),
        (
            source(f"uri: x, storage_options: {{endpoint_url: 'http://u:{CANARY}@host'}}"),
            f"source.storage_options: endpoint_url: {REFERENCE}",
        ),
        (
            LOCAL + f"run: {{storage_options: {{secret: {CANARY}}}}}\n",
            f"run.storage_options: secret: {REFERENCE}",
        ),
        (
            LOCAL + f"beam: {{options: {{s3_secret_access_key: {CANARY}}}}}\n",
            "beam.options: s3_secret_access_key: pipeline options are public; "
            "give secrets where workers resolve them",
        ),
    ],
)
def test_a_plain_secret_is_refused_and_not_repeated(load: Load, text: str, expected: str) -> None:
    errors = errors_of(load, text)

    assert errors == [expected]
    assert CANARY not in "".join(errors)


@pytest.mark.parametrize(
    "options",
    [
        "{anon: true}",
        "{endpoint_url: 'http://127.0.0.1:9000', key: env:KEY, secret: env:SECRET}",
        "{token: anon}",
        "{token: google_default}",
        "{token: /run/secrets/google.json}",
        "{token: env:GOOGLE_TOKEN}",
        "{aws_access_key_id: AKIA0}",
        "{secret: null}",
        "{client_kwargs: {region_name: eu-central-1}}",
    ],
)
def test_what_is_no_secret_may_be_given_as_it_is(load: Load, options: str) -> None:
    assert load(source(f"uri: x, storage_options: {options}")).source.storage_options


def test_a_loaded_configuration_shows_references_and_no_secret(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("T", CANARY)

    config = load(REMOTE)

    assert CANARY not in repr(config) + config.model_dump_json() + repr(config.destination.to_destination())
