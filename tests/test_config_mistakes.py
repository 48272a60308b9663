"""Configurations with mistakes: all are told at once, each by its path."""

import pytest

from pipelines.config_reading import ConfigError, with_beam_options
from tests.configurations import (
    AMOUNT,
    CANARY,
    DAY,
    FINITE,
    FOLDER,
    ID,
    LOCAL,
    REFERENCE,
    SECTION,
    Load,
    credentials,
    endpoint,
    errors_of,
    source,
)


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
        *(
            (
                LOCAL + f"records: {{kind: {kind}, order_by: $time}}\n",
                f"configuration: records.order_by goes with kind profiles or groups, not with {kind}",
            )
            for kind in ("events", "identity", "mixed", "lookup_tables")
        ),
        (
            "source: {uri: x, csv: {columns: [a, b], types: {b: json, c: json}}}\n"
            "destination: {emulator: true}\n",
            "source.csv: types: 'c' is none of the columns",
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


@pytest.mark.parametrize("word", ["NO", "yes", "On", "off"])
def test_a_word_that_may_be_a_text_or_a_switch_is_refused_with_its_line(load: Load, word: str) -> None:
    problem = f"{word} may mean true or false, or be a text: write true or false, or put it in quotes"
    tag = LOCAL + "records: {map: {tags: {country: %s}}}\n"

    (error,) = errors_of(load, tag % word)
    assert error.endswith(f", line {LOCAL.count(chr(10)) + 1}: {problem}")
    (error,) = errors_of(load, LOCAL + f"records: {{map: {{rename: {{{word}: other}}}}}}\n")
    assert error.endswith(problem)
    assert errors_of(load, LOCAL, f"run.id={word}") == [f"--set run.id: {problem}"]
    quoted = load(tag % f"'{word}'").records.map
    assert quoted is not None
    assert quoted.tags == {"country": word}


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
