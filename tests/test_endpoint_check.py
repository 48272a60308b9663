"""Where records may go (R36): Mixpanel's hosts and loopback, any other only by an explicit word."""

from __future__ import annotations

import pytest

from mixpanel_http.destinations import HOSTS, EndpointRefused, check_endpoint

REFUSED = [
    "",
    "api.mixpanel.com",
    "//api.mixpanel.com",
    "http://api.mixpanel.com",
    "ftp://api.mixpanel.com",
    "file:///etc/passwd",
    "file://127.0.0.1/etc/passwd",
    "unix:///run/x",
    "javascript:alert(1)",
    "https://",
    "https://:443",
    "https://evil.example",
    "https://evil.example/api.mixpanel.com",
    "https://evil.example?api.mixpanel.com",
    "https://evil.example#https://api.mixpanel.com",
    "https://api.mixpanel.com.evil.example",
    "https://api.mixpanel.com@evil.example",
    "https://api.mixpanel.com:443@evil.example",
    "https://user@api.mixpanel.com",
    "https://user:password@api.mixpanel.com",
    "https://@api.mixpanel.com",
    "https://api.mixpanel.com\\@evil.example",
    "https://evil.example\\.api.mixpanel.com",
    "https://xapi.mixpanel.com",
    "https://api-mixpanel.com",
    "https://api.mixpanel.com:8443",
    "https://api.mixpanel.com:99999",
    "https://api.mixpanel.com:0x1bb",
    "https://api.mixpanel.com\r\nHost: evil.example",
    "https://api.mixpanel.com\nX: y",
    "https://api.mixpanel.com\t",
    " https://api.mixpanel.com",
    "https://api.mixpanel.com\x00.evil.example",
    "https://api.mixpanel.com%0d%0aHost:evil.example",
    "https://\u0430pi.mixpanel.com",
    "https://api\uff0emixpanel.com",
    "https://api.mixpanel.com/import",
    "https://api.mixpanel.com/../x",
    "http://169.254.169.254",
    "http://169.254.169.254/latest/meta-data",
    "http://[::ffff:169.254.169.254]",
    "http://[fe80::1%25eth0]",
    "http://2852039166",
    "http://2130706433",
    "http://0x7f000001",
    "http://0177.0.0.1",
    "http://127.1",
    "http://0.0.0.0",
    "http://[::]",
    "http://[::1",
    "http://10.0.0.1",
    "http://localhost.evil.example",
    "http://metadata.google.internal",
]


@pytest.mark.parametrize("url", REFUSED, ids=ascii)
def test_an_endpoint_that_is_neither_mixpanels_nor_ours_is_refused(url: str) -> None:
    with pytest.raises(EndpointRefused):
        check_endpoint(url, allow_any=False)


def test_there_are_more_than_forty_tries() -> None:
    assert len(set(REFUSED)) >= 40


@pytest.mark.parametrize(
    "url",
    [*HOSTS.values(), "http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:9", "https://127.9.9.9"],
)
def test_mixpanels_hosts_and_loopback_are_taken(url: str) -> None:
    assert check_endpoint(url, allow_any=False) == url


def test_another_host_is_taken_by_name_only_and_only_with_https() -> None:
    assert check_endpoint("https://proxy.example", allow_any=True) == "https://proxy.example"
    for url in ("http://proxy.example", "http://169.254.169.254", "https://u:p@proxy.example"):
        with pytest.raises(EndpointRefused):
            check_endpoint(url, allow_any=True)


def test_what_is_refused_is_not_repeated_with_its_password() -> None:
    with pytest.raises(EndpointRefused) as refused:
        check_endpoint("https://user:CANARY@evil.example", allow_any=False)

    assert "CANARY" not in str(refused.value)
