"""Configurations: the shipped ones load, and what is wrong with one is told at once, without its secrets."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.config import Config
from pipelines.config_reading import MAX_CONFIG_BYTES, ConfigError, load_config, load_run, with_beam_options

ROOT = Path(__file__).resolve().parent.parent
CANARY = "canary7f3a9e"
LOCAL = "source: {uri: x.json}\ndestination: {emulator: true}\n"
REMOTE = "source: {uri: x.json}\ndestination:\n  credentials: {project_token: env:T}\n"

Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str | bytes, *overrides: str) -> Config:
        path = tmp_path / "c.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_config(str(path), overrides)

    return load


def errors_of(load: Load, text: str | bytes, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, *overrides)
    assert str(caught.value) == "\n".join(caught.value.errors)
    return [error.split("c.yaml", 1)[-1] for error in caught.value.errors]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").iterdir()), ids=lambda path: path.name)
def test_every_shipped_configuration_loads(path: Path) -> None:
    assert load_run(str(path)).destinations


def test_two_keys_are_enough(load: Load) -> None:
    config = load(LOCAL)

    assert config.source.uris == ["x.json"]
    assert config.records.kind == "events"
    assert config.limits.records_per_request == 2000
    assert config.beam.runner == "DirectRunner"


def test_all_that_is_wrong_is_told_at_once(load: Load) -> None:
    text = """
sourc: {uri: x}
destination: {regoin: us, emulator: maybe}
limits: {in_flight: many, records_per_request: 2001}
run: {state: '', allow_dead_letters: few}
"""

    assert errors_of(load, text) == [
        "source: is required",
        "destination.emulator: must be true or false",
        "destination.regoin: unknown key; did you mean region?",
        "limits.records_per_request: must be less than or equal to 2000",
        "limits.in_flight: must be a valid integer, unable to parse string as an integer",
        "run.state: names no folder",
        "run.allow_dead_letters: must be a count like 100 or a percentage like 1%",
        "sourc: unknown key; did you mean source?",
    ]


def test_what_is_wrong_with_overrides_is_told_with_the_rest(load: Load) -> None:
    assert errors_of(load, LOCAL, "run.id", "limits.in_flight=0", "limits.foo=1") == [
        "--set run.id: must look like key.path=value",
        "limits.in_flight: must be greater than or equal to 1",
        "limits.foo: unknown key; there are records_per_request, bytes_per_request, events_per_second, "
        "bytes_per_minute, in_flight, lanes, retry",
    ]


def source(text: str) -> str:
    return f"source: {{{text}}}\ndestination: {{emulator: true}}\n"


def credentials(text: str) -> str:
    return f"source: {{uri: x.json}}\ndestination: {{credentials: {{{text}}}}}\n"


def endpoint(url: str, also: str = "") -> str:
    return f"{REMOTE}  endpoint: {url!r}\n{also}"


SECTION = "must be a section with keys of its own"
DAY = "must be a day that exists, like 2024-01-31"
FOLDER = "names a folder; end it with a pattern, like /*.json or /** for all that is below"
AMOUNT = "must be a count like 100 or a percentage like 1%"
REFERENCE = "a secret is given by reference only: env:NAME, file:PATH, gcp-secret:NAME or aws-secret:NAME"
FINITE = "must be a finite number"
ID = "must be 1 to 100 letters, digits, dots, underscores or hyphens, the first no dot"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # sections
        ("", ": must hold sections like 'source:' and 'destination:'"),
        ("- a\n", ": must hold sections like 'source:' and 'destination:'"),
        ("source: {uri: x}\ndestination:\n", f"destination: {SECTION}"),
        ("source: s3://b/x\ndestination: {emulator: true}\n", f"source: {SECTION}"),
        (LOCAL + "1: 2\n", "1: a key is a name"),
        (
            LOCAL + "tasks: []\n",
            "tasks: unknown key; there are source, records, destination, limits, run, beam",
        ),
        # uri
        (source("dates: null"), "source.uri: is required"),
        (source("uri: null"), "source.uri: must be text or a list"),
        (source("uri: []"), "source.uri: names no file"),
        (source("uri: ''"), "source.uri: names no file"),
        (source("uri: 's3://'"), "source.uri: names no file"),
        (source("uri: 's3://bucket'"), f"source.uri: {FOLDER}"),
        (source("uri: 'data/'"), f"source.uri: {FOLDER}"),
        (
            source("uri: [a.json, 'ftp://b/x']"),
            "source.uri: ftp:// is not supported; use s3://, gs://, file:// or a path",
        ),
        (source("uri: 'x/{date}/{date}'"), "source.uri: {date} may stand in it once"),
        # dates
        (
            source("uri: x, dates: {from: 2024-01-01, to: 2024-01-02}"),
            "source: dates needs {date} in every uri",
        ),
        (
            source("uri: ['{date}/x', y], dates: {from: 2024-01-01, to: 2024-01-02}"),
            "source: dates needs {date} in every uri",
        ),
        (source("uri: '{date}/x', dates: {from: 2024-01-01}"), "source.dates.to: is required"),
        (
            source("uri: '{date}/x', dates: {from: 2024-01-02, to: 2024-01-01}"),
            "source.dates: 'to' (2024-01-01) is before 'from' (2024-01-02)",
        ),
        (source("uri: '{date}/x', dates: {from: 2023-02-29, to: 2024-01-01}"), f"source.dates.from: {DAY}"),
        (source("uri: '{date}/x', dates: {from: 2024-01-01, to: 20240102}"), f"source.dates.to: {DAY}"),
        (
            source("uri: '{date}/x', dates: {from: 2024-01-01 10:00:00, to: 2024-01-02}"),
            f"source.dates.from: {DAY}",
        ),
        (source("uri: '{date}/x', dates: {from: 2024-01-01, to: today}"), f"source.dates.to: {DAY}"),
        # records
        (
            LOCAL + "records: {kind: event}\n",
            "records.kind: must be 'events', 'profiles', 'groups', 'identity', 'mixed' or 'lookup_tables'",
        ),
        (
            LOCAL + "records: {tables: {a.csv: b}}\n",
            "configuration: records.tables goes with kind lookup_tables, not with events",
        ),
        (
            LOCAL + "records: {kind: lookup_tables, map: {function: 'json:loads'}}\n",
            "configuration: records.map does not go with kind lookup_tables: a table is sent as it stands",
        ),
        (LOCAL + "records: {default_ip: 1.2.3.4}\n", "records.default_ip: must be 0"),
        (
            LOCAL + "records: {insert_id: {mode: fields}}\n",
            "records.insert_id: insert_id.fields goes with mode: fields, and only with it",
        ),
        (
            LOCAL + "records: {insert_id: {fields: [order_id]}}\n",
            "records.insert_id: insert_id.fields goes with mode: fields, and only with it",
        ),
        (
            LOCAL + "records: {insert_id: {mode: fields, fields: order_id}}\n",
            "records.insert_id.fields: must be a list",
        ),
        # destination
        (
            "source: {uri: x}\ndestination: {region: eu}\n",
            "destination: credentials are needed, unless emulator is true",
        ),
        (
            "source: {uri: x}\ndestination: {emulator: true, region: EU}\n",
            "destination.region: must be 'us', 'eu' or 'in'",
        ),
        (
            "source: {uri: x}\ndestination: {emulator: true, endpoint: 'http://127.0.0.1:1'}\n",
            "destination: emulator and endpoint exclude each other",
        ),
        (endpoint("api.mixpanel.com"), "destination.endpoint: an endpoint looks like https://HOST[:PORT]"),
        (
            endpoint("https://api.mixpanel.com/import"),
            "destination.endpoint: an endpoint is a host without a path or query",
        ),
        (
            endpoint("https://proxy.example"),
            "destination: proxy.example is neither Mixpanel's nor this machine; "
            "set destination.allow_any_endpoint: true to mean it",
        ),
        (
            endpoint("http://proxy.example", "  allow_any_endpoint: true\n"),
            "destination.endpoint: records and credentials leave this machine over https only",
        ),
        (
            endpoint("http://api.mixpanel.com"),
            "destination.endpoint: records and credentials leave this machine over https only",
        ),
        (
            endpoint("http://127.0.0.1:99999"),
            "destination.endpoint: no usable URL: Port out of range 0-65535",
        ),
        (
            endpoint("https://a b"),
            "destination.endpoint: an endpoint must have no white space or control characters",
        ),
        (credentials(""), "destination.credentials: give either project_token or service_account"),
        (
            credentials("project_token: env:T, service_account: {username: env:A, secret: env:B}"),
            "destination.credentials: give either project_token or service_account",
        ),
        (
            credentials("service_account: {username: env:A, secret: env:B}"),
            "destination.credentials: service_account needs project_id",
        ),
        # limits
        (LOCAL + "limits: {events_per_second: 0}\n", "limits.events_per_second: must be greater than 0"),
        (LOCAL + "limits: {events_per_second: nan}\n", f"limits.events_per_second: {FINITE}"),
        (LOCAL + "limits: {bytes_per_minute: inf}\n", f"limits.bytes_per_minute: {FINITE}"),
        (
            LOCAL + "limits: {retry: {give_up_after_seconds: inf}}\n",
            f"limits.retry.give_up_after_seconds: {FINITE}",
        ),
        (LOCAL + "limits: {in_flight: 257}\n", "limits.in_flight: must be less than or equal to 256"),
        (
            LOCAL + "limits: {in_flight: 1:30}\n",
            "limits.in_flight: must be a valid integer, unable to parse string as an integer",
        ),
        # amounts
        (LOCAL + "run: {allow_dead_letters: 0.1}\n", f"run.allow_dead_letters: {AMOUNT}"),
        (LOCAL + "run: {allow_dead_letters: .nan}\n", f"run.allow_dead_letters: {AMOUNT}"),
        (LOCAL + "run: {allow_dead_letters: true}\n", f"run.allow_dead_letters: {AMOUNT}"),
        (LOCAL + "run: {allow_dead_letters: 100.5%}\n", f"run.allow_dead_letters: {AMOUNT}"),
        (LOCAL + "run: {max_errors: -1}\n", f"run.max_errors: {AMOUNT}"),
        (LOCAL + "run: {max_errors: nan%}\n", f"run.max_errors: {AMOUNT}"),
        (LOCAL + "run: {max_errors: 010}\n", f"run.max_errors: {AMOUNT}"),
        # run
        (LOCAL + "run: {id: ../x}\n", f"run.id: {ID}"),
        (LOCAL + 'run: {id: "a\\n"}\n', f"run.id: {ID}"),
        (LOCAL + "run: {state: 'http://x'}\n", "run.state: must be a path, s3:// or gs://"),
        (LOCAL + "run: {state: 's3://'}\n", "run.state: names no folder"),
        # beam
        (
            LOCAL + "beam: {runner: Direct}\n",
            "beam.runner: must be 'DirectRunner', 'DataflowRunner', 'PortableRunner', 'FlinkRunner' "
            "or 'SparkRunner'",
        ),
    ],
)
def test_a_mistake_is_told_by_its_path(load: Load, text: str, expected: str) -> None:
    assert errors_of(load, text) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("source:\n\turi: x\n", ", line 2: no valid YAML: a tab; YAML is indented by spaces"),
        (
            "source: {uri: a/{date}/*}\n",
            ", line 1: no valid YAML: expected ',' or '}', but got '{' "
            "(between braces a value with {date} needs quotes)",
        ),
        ("source:\n  uri: x\n  uri: y\n", ", line 3: no valid YAML: the key 'uri' stands twice"),
        (LOCAL + "source: {uri: y}\n", ", line 3: no valid YAML: the key 'source' stands twice"),
        (
            "a: &a {uri: y}\nsource: {<<: *a}\n",
            ", line 2: no valid YAML: '<<' is not supported; write the keys out",
        ),
        (
            "source: &a {uri: x, storage_options: *a}\n",
            ", line 1: no valid YAML: found unconstructable recursive node",
        ),
        ("? [a]\n: b\n", ", line 1: no valid YAML: a key is a name"),
        (LOCAL + "---\na: b\n", ", line 3: no valid YAML: but found another document"),
        ("source: " + "[" * 3000 + "]" * 3000, ": no valid YAML: nested too deep"),
        ("source: {uri: 'a\0b'}", ": no valid YAML: special characters are not allowed"),
        (b"source: {uri: caf\xe9}", ": is no text in UTF-8"),
        (LOCAL.encode("utf-16"), ": is no text in UTF-8"),
        (b"#" * (MAX_CONFIG_BYTES + 1), ": a configuration has at most 1,000,000 bytes"),
        ("a: &a [x]\nb: [" + "*a, " * 21 + "]\n", ": more than 20 YAML aliases"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_file_that_is_no_yaml_is_told_by_its_line(load: Load, text: str | bytes, expected: str) -> None:
    assert errors_of(load, text) == [expected]


def test_a_yaml_tag_runs_nothing(load: Load, tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    (error,) = errors_of(load, f"!!python/object/apply:os.system ['touch {mark}']\n")

    assert "could not determine a constructor for the tag" in error
    assert not mark.exists()


def test_aliases_of_aliases_are_refused_before_they_grow(load: Load) -> None:
    levels = "".join(f"{chr(98 + i)}: [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9))
    bomb = "a: &a [x]\n" + "\n".join(f"{line[:2]} &{line[0]}{line[2:]}" for line in levels.splitlines())

    assert errors_of(load, bomb) == [": more than 20 YAML aliases"]


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


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("limits.in_flight=8", "limits.in_flight", 8),
        ("limits.events_per_second=1e4", "limits.events_per_second", 10_000.0),
        ("source.uri=[a.json, b.json]", "source.uri", ["a.json", "b.json"]),
        ("source.uri=s3://b/dt={date}/*", "source.uri", "s3://b/dt={date}/*"),
        ("source.storage_options.anon=true", "source.storage_options", {"anon": True}),
        ("run.id=20240401", "run.id", "20240401"),
        ("run.id=007", "run.id", "007"),
        ("run.max_errors=null", "run.max_errors", None),
        ("run.allow_dead_letters=1%", "run.allow_dead_letters", "1%"),
        ("records.insert_id={mode: fields, fields: [a]}", "records.insert_id.fields", ["a"]),
    ],
)
def test_an_override_replaces_one_value(load: Load, override: str, path: str, value: object) -> None:
    found: object = load(LOCAL, override)
    for name in path.split("."):
        found = getattr(found, name)

    assert found == value


def test_the_last_of_two_overrides_counts(load: Load) -> None:
    assert load(LOCAL, "run.id=a", "run.id=b").run.id == "b"


def test_an_override_fills_a_section_that_is_empty(load: Load) -> None:
    assert load("source: {uri: x}\ndestination:\n", "destination.emulator=true").destination.emulator


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("run.id", "--set run.id: must look like key.path=value"),
        ("=x", "--set : must look like key.path=value"),
        ("run..id=x", "--set run..id: must look like key.path=value"),
        ("source.uri.x=1", "--set source.uri.x: uri has no keys"),
        (
            "source.uri={date}/*",
            "--set source.uri: the value is no valid YAML; a text with special characters needs quotes",
        ),
        (
            "destination.credentials.project_token=" + CANARY,
            f"destination.credentials.project_token: {REFERENCE}",
        ),
        ("source.dates.from=2024-02-30", f"source.dates.from: {DAY}"),
    ],
)
def test_an_override_that_does_not_fit_is_told(load: Load, override: str, expected: str) -> None:
    text = "source: {uri: '{date}/x', dates: {from: 2024-01-01, to: 2024-03-31}}\n"
    text += "destination: {credentials: {project_token: env:T}}\n"

    assert errors_of(load, text, override) == [expected]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file or directory"):
        load_config(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(str(tmp_path))


@pytest.mark.parametrize(
    "encode", [lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n")], ids=["BOM", "CRLF"]
)
def test_files_from_windows_load(load: Load, encode: Callable[[str], str]) -> None:
    assert load(encode(LOCAL)).destination.emulator


def test_dates_and_numbers_are_what_they_look_like(load: Load) -> None:
    text = """
source: {uri: 'x/{date}/*', dates: {from: 2024-02-29, to: "2024-03-01"}}
destination:
  credentials:
    service_account: {username: env:A, secret: file:/run/secrets/mixpanel}
    project_id: 1234567
limits: {events_per_second: 1e3, bytes_per_minute: 1.5e6}
run: {allow_dead_letters: 0.1%, max_errors: 100}
"""
    config = load(text)

    assert config.source.dates is not None
    assert (config.source.dates.from_, config.source.dates.to) == (dt.date(2024, 2, 29), dt.date(2024, 3, 1))
    assert config.destination.credentials is not None
    assert config.destination.credentials.project_id == "1234567"
    assert (config.limits.events_per_second, config.limits.bytes_per_minute) == (1000.0, 1_500_000.0)
    assert (config.run.allow_dead_letters, config.run.max_errors) == ("0.1%", 100)


def test_a_loaded_configuration_shows_references_and_no_secret(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("T", CANARY)

    config = load(REMOTE)

    assert CANARY not in repr(config) + config.model_dump_json() + repr(config.destination.to_destination())


def test_the_endpoint_is_the_regions_unless_another_is_meant(load: Load) -> None:
    other = "destination.endpoint=https://proxy.example"

    assert load(REMOTE).destination.to_destination().base_url == "https://api.mixpanel.com"
    assert load(REMOTE, "destination.region=in").destination.to_destination().base_url == (
        "https://api-in.mixpanel.com"
    )
    allowed = load(REMOTE, other, "destination.allow_any_endpoint=true")
    assert allowed.destination.to_destination().base_url == "https://proxy.example"


@pytest.mark.parametrize(
    ("runner", "reason"),
    [
        ("DaskRunner", "DaskRunner is refused: it loses data in silence"),
        (
            "apache_beam.runners.dask.dask_runner.DaskRunner",
            "DaskRunner is refused: it loses data in silence",
        ),
        ("BundleBasedDirectRunner", "BundleBasedDirectRunner is refused: it cannot run all steps"),
        ("PrismRunner", "PrismRunner is refused: it downloads a program"),
        ("prism", "PrismRunner is refused: it downloads a program"),
        ("SwitchingDirectRunner", "SwitchingDirectRunner is refused: it downloads another runner"),
    ],
)
def test_a_runner_that_loses_data_or_is_untested_is_refused_by_name_with_the_reason(
    load: Load, runner: str, reason: str
) -> None:
    (error,) = errors_of(load, LOCAL + f"beam: {{runner: {runner}}}\n")
    assert error.startswith(f"beam.runner: {reason}")
    (error,) = errors_of(load, LOCAL + f"beam: {{options: {{runner: {runner}}}}}\n")
    assert error == "beam.options: runner: give it as beam.runner"
    with pytest.raises(ConfigError) as told:
        with_beam_options(load(LOCAL), {"runner": runner})
    assert told.value.errors[0].startswith(f"beam.runner: {reason}")


def test_options_of_the_command_line_stand_above_those_of_the_file(load: Load) -> None:
    config = load(LOCAL + "beam: {options: {direct_num_workers: 2, job_name: x}}\n")
    beam = with_beam_options(config, {"direct_num_workers": 3}).beam
    assert (beam.runner, beam.options) == ("DirectRunner", {"direct_num_workers": 3, "job_name": "x"})


# Maps.

MAPPED = LOCAL + "records:\n  map:\n"


def test_all_that_is_wrong_with_a_map_is_told_at_once(load: Load) -> None:
    text = (
        MAPPED
        + """
    event: [name, {const: x, constant: y}]
    time: {from: a..b, zone: Europe/Berlyn, format: epoch}
    distinct_id: ''
    properties: {a: [], "b*": c, d: 7}
    flatten: {depth: 0}
    personal_data: {hash: {keys: [email], patterns: [mail]}}
    function: not a name
    dialect: mixpanl
    dates: {from: 2024-02-30, to: 2024-03-01}
    tags: {a: 1}
    rename: [a]
    drp: [a]
"""
    )

    errors = errors_of(load, text)
    assert [error.partition(":")[0] for error in errors] == [
        *("records.map.dialect", "records.map.function", "records.map.event", "records.map.time.from"),
        *("records.map.time.format", "records.map.time.zone", "records.map.distinct_id"),
        *("records.map.properties", "records.map.rename", "records.map.flatten.depth"),
        *("records.map.personal_data.hash.patterns.0", "records.map.dates.from", "records.map.drp"),
    ]
    told = "\n".join(errors)
    assert "'a..b' is no path from character 3 on" in told
    assert "'Europe/Berlyn' is no time zone" in told
    assert "a: an empty list names no source; b*: 'b*': a name with *" in told
    assert "did you mean drop?" in told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("    personal_data: {hash: {keys: [a]}}\n", "hash and salt go together"),
        ("    personal_data: {hash: {keys: [a]}, salt: plain}\n", "by reference only"),
        ("    distinct_id: user\n", "event is required, unless the records have Mixpanel's shape"),
        ("    function: no_such_module_here:f\n", "no_such_module_here cannot be imported"),
        ("    dialect: snowplow\n", "reads the lines itself; give source.format: ndjson"),
        ("    tags: {a: 1}\n  kind: profiles\n", "with records.kind profiles it may hold a function alone"),
    ],
)
def test_a_map_that_cannot_be_meant_is_refused(load: Load, text: str, words: str) -> None:
    (error,) = errors_of(load, MAPPED + text)

    assert words in error


def test_a_function_is_found_beside_the_configuration(load: Load, tmp_path: Path) -> None:
    (tmp_path / "beside_the_configuration.py").write_text("def f(record): return record\n")

    declared = load(MAPPED + "    function: beside_the_configuration:f\n").records.map
    assert declared is not None
    assert declared.to_spec().function == "beside_the_configuration:f"


def test_a_map_without_event_keeps_mixpanels_shape(load: Load) -> None:
    declared = load(MAPPED + "    time: {zone: Europe/Berlin}\n").records.map

    assert declared is not None
    assert declared.to_spec().time.value == (("properties", "time"),)
    assert declared.to_spec().time.zone == "Europe/Berlin"
