"""Times of the source: what is one becomes Mixpanel's, what is none is refused and never guessed."""

import datetime as dt
import json
import zoneinfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_http.event_rules import is_time_in_range
from mixpanel_http.verdicts import RecordRefused
from record_maps.spec import TimeSpec
from record_maps.times import check_time_format, compile_time, day_start

DAYS = st.dates(dt.date(1971, 1, 2), dt.date(2037, 12, 31))
CLOCKS = st.builds(dt.datetime.combine, DAYS, st.times())
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


def read(value: object, format_: str = "auto", zone: str = "UTC", **more: object) -> float:
    spec = TimeSpec((), format_, zone, **more)  # type: ignore[arg-type]
    raw, seconds = compile_time(spec)(msgspec.Raw(json.dumps(value).encode()))
    assert float(bytes(raw)) in (seconds, round(seconds * 1000))
    return seconds


def token(text: str, format_: str = "auto") -> bytes:
    return bytes(compile_time(TimeSpec((), format_))(msgspec.Raw(text.encode()))[0])


@pytest.mark.parametrize(
    "text",
    [
        *(
            "2024-03-05T08:30:00Z",
            "2024-03-05 08:30:00",
            "2024-03-05T09:30:00+01:00",
            "2024-03-05T09:30:00+0100",
        ),
        *(
            "2024-03-05T09:30:00+01",
            "2024-03-05 08:30:00 UTC",
            "2024-03-05 08:30:00.000 UTC",
            "2024-03-05T08:30",
        ),
        *("2024-03-05T08:30:00.000000000Z", "2024-03-05 08:30:00,000", "2024-03-05T02:30:00-06:00"),
        *(1709627400, 1709627400000, 1709627400000000, 1709627400000000000, "1709627400", "1709627400.0"),
    ],
)
def test_the_same_moment_in_many_forms(text: object) -> None:
    assert read(text) == 1709627400


@given(st.builds(dt.datetime.combine, DAYS, st.times(timezones=st.timezones())))
def test_a_time_with_an_offset_is_read_as_python_reads_it(moment: dt.datetime) -> None:
    if moment.utcoffset() and (moment.utcoffset() or dt.timedelta()) % dt.timedelta(minutes=1):
        return  # offsets with seconds are history, and not in ISO 8601
    exact = (moment - dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)) // dt.timedelta(milliseconds=1)

    assert round(read(moment.isoformat()) * 1000) == exact


@given(CLOCKS)
def test_a_local_time_is_the_first_that_shows_it_or_refused(clock: dt.datetime) -> None:
    utc = dt.timezone.utc
    shown = [
        moment
        for fold in (0, 1)
        if (moment := clock.replace(tzinfo=BERLIN, fold=fold).astimezone(utc))
        and moment.astimezone(BERLIN).replace(tzinfo=None) == clock
    ]
    try:
        seconds = read(clock.isoformat(), zone="Europe/Berlin")
    except RecordRefused:
        assert not shown
        return
    assert round(seconds * 1000) == int(min(shown).timestamp() * 1000)


def test_numbers_that_mixpanel_takes_stay_as_they_came() -> None:
    assert token("1709627400") == b"1709627400"
    assert token("1709627400.250") == b"1709627400.250"
    assert token("1709627400123") == b"1709627400123"
    assert token("1709627400123", "milliseconds") == b"1709627400123"
    assert token('"1709627400"', "seconds") == b"1709627400000"


def test_a_number_of_another_size_than_the_declared_unit_is_not_taken_for_what_it_looks_like() -> None:
    assert token("1709627400123", "seconds") == b"1709627400123000"
    assert token("1709627400", "milliseconds") == b"1709627.4"


@pytest.mark.parametrize("text", ["1972-01-01T00:00:00Z", "1971-01-01T00:00:00.250Z", "1973-03-03"])
def test_a_time_of_which_the_milliseconds_would_look_like_seconds_is_sent_in_seconds(text: str) -> None:
    exact = dt.datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=dt.timezone.utc).timestamp()
    sent = float(token(json.dumps(text)))

    assert sent == exact
    assert is_time_in_range(sent, 1.7e9)


def test_a_day_in_digits_may_be_a_number() -> None:
    assert read(20240305, "%Y%m%d") == read("20240305", "%Y%m%d") == day_start(dt.date(2024, 3, 5))


def test_microseconds_become_milliseconds() -> None:
    assert token("1709627400123456", "microseconds") == b"1709627400123"


@pytest.mark.parametrize(
    ("value", "format_", "words"),
    [
        ("2024-02-30", "auto", "does not exist"),
        ("2023-02-29T10:00:00Z", "iso8601", "does not exist"),
        ("2024-03-05T25:00:00", "auto", "does not exist"),
        ("2024-13-01", "auto", "does not exist"),
        ("yesterday", "auto", "no time in ISO 8601"),
        ("05.03.2024", "auto", "no time in ISO 8601"),
        ("31.02.2024", "%d.%m.%Y", "does not exist"),
        ("tomorrow", "%d.%m.%Y", "no time in the format"),
        ("2024-03-05T09:30:00+99:99", "auto", "an offset that does not exist"),
        ("2024-03-05T09:30:00+24:00", "auto", "an offset that does not exist"),
        ("1e9", "seconds", "no number of seconds"),
        (1709627400, "iso8601", "where text is expected"),
        (True, "auto", "neither text nor a number"),
        ([1], "auto", "neither text nor a number"),
        (1e300, "auto", "too large"),
        ("2024-03-31T02:30:00", "auto", "leapt over"),
        ("31.03.2024 02:30", "%d.%m.%Y %H:%M", "leapt over"),
    ],
)
def test_what_is_no_time_is_refused_and_not_guessed(value: object, format_: str, words: str) -> None:
    zone = "Europe/Berlin" if words == "leapt over" else "UTC"
    with pytest.raises(RecordRefused, match=words) as caught:
        read(value, format_, zone)

    assert caught.value.reason.value == "bad_time"
    assert str(value) not in caught.value.message


def test_wall_clocks_of_old_projects_are_put_right() -> None:
    # 2024-07-01 12:00 as a clock in Berlin showed it, counted as if that were UTC.
    assert read(1719835200, zone="Europe/Berlin", wall_clock=True) == 1719828000


def test_an_offset_is_added() -> None:
    assert read("2024-03-05T08:30:00Z", offset_s=-3600.0) == 1709627400 - 3600
    assert read(1709627400, offset_s=0.5) == 1709627400.5


def test_a_pattern_reads_what_it_describes() -> None:
    assert read("05.03.2024 08:30", "%d.%m.%Y %H:%M") == 1709627400
    assert read("2024/03/05 +0100", "%Y/%m/%d %z") == 1709593200


def test_a_day_begins_at_midnight_in_utc() -> None:
    assert day_start(dt.date(2024, 3, 5)) == 1709596800


def test_a_format_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of auto, iso8601"):
        check_time_format("epoch")


@pytest.mark.parametrize(
    ("pattern", "words"),
    [("%Q", "%Q stands for nothing"), ("%d.%m.", "without a year"), ("%Y-%", "% stands for nothing")],
)
def test_a_pattern_that_no_time_fits_is_refused(pattern: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_time_format(pattern)
