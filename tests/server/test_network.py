"""Which hosts are this machine, which proxy leads to the others, and how one is asked."""

from __future__ import annotations

import base64
import logging

import pytest
from wavegate_server.network import Proxies, Proxy, Tunnel, TunnelRefused, is_exempt, is_loopback

OFFICE = Proxy("proxy.example", 3128, "ann", "s3cret/word")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "localhost", "LOCALHOST", "localhost."]
)
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "localhost.example", "::", "example", "128.0.0.1"])
def test_no_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("text", "host", "port", "user", "password"),
    [
        ("http://proxy.example:3128", "proxy.example", 3128, "", ""),
        ("http://proxy.example", "proxy.example", 80, "", ""),
        ("http://ann:s3cret%2Fword@proxy.example:3128/", "proxy.example", 3128, "ann", "s3cret/word"),
        ("http://[fd00::1]:8080", "fd00::1", 8080, "", ""),
    ],
)
def test_proxies_are_read(text: str, host: str, port: int, user: str, password: str) -> None:
    assert Proxy.parse(text) == Proxy(host, port, user, password)


@pytest.mark.parametrize(
    "text",
    [
        "proxy.example:3128",
        "socks5://ann:s3cret@proxy.example",
        "https://ann:s3cret@proxy.example",
        "http://ann:s3cret@:3128",
        "http://ann:s3cret@proxy.example:port",
        "http://ann:s3cret@proxy.example/path",
        "http://ann:s3cret@[::1",
        "",
    ],
)
def test_what_is_no_proxy_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="must be http://") as refusal:
        Proxy.parse(text)
    assert "s3cret" not in str(refusal.value)


def test_the_password_shows_nowhere() -> None:
    assert str(OFFICE) == "http://proxy.example:3128"
    shown = f"{OFFICE!r} {OFFICE} {Proxies(OFFICE)!r}"
    assert "s3cret" not in shown
    assert "ann" not in shown


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "exempt"),
    [
        ("", "a.example", 443, False),
        ("*", "a.example", 443, True),
        ("a.example", "a.example", 443, True),
        ("example", "a.example", 443, True),
        (".example", "a.example", 443, True),
        ("b.example, a.example", "a.example", 443, True),
        ("le", "a.example", 443, False),
        ("a.example:443", "a.example", 443, True),
        ("a.example:80", "a.example", 443, False),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("fd00::/8", "fd00::1", 443, True),
    ],
)
def test_no_proxy(no_proxy: str, host: str, port: int, exempt: bool) -> None:
    assert is_exempt(host, port, no_proxy) is exempt


class TestChoice:
    def test_off_is_none(self) -> None:
        assert Proxies().to("wss://a.example") is None
        assert Proxies("off", {"https_proxy": "http://p"}).to("wss://a.example") is None

    @pytest.mark.parametrize("url", ["ws://127.0.0.1:8090", "http://localhost:1", "wss://[::1]:2"])
    def test_none_leads_to_this_machine(self, url: str) -> None:
        assert Proxies(OFFICE).to(url) is None
        assert Proxies("env", {"http_proxy": "http://p", "https_proxy": "http://p"}).to(url) is None

    def test_the_one_that_is_given_leads_everywhere_else(self) -> None:
        assert Proxies(OFFICE, {"no_proxy": "*"}).to("wss://a.example") is OFFICE
        assert Proxies(OFFICE).to("http://a.example:8080") is OFFICE

    @pytest.mark.parametrize(
        ("environment", "url", "port"),
        [
            ({"https_proxy": "http://p:1", "http_proxy": "http://p:2"}, "wss://a.example", 1),
            ({"https_proxy": "http://p:1", "http_proxy": "http://p:2"}, "https://a.example", 1),
            ({"https_proxy": "http://p:1", "http_proxy": "http://p:2"}, "ws://a.example", 2),
            ({"HTTPS_PROXY": "http://p:1"}, "wss://a.example", 1),
            ({"https_proxy": "http://p:1", "HTTPS_PROXY": "http://p:2"}, "wss://a.example", 1),
            ({"all_proxy": "http://p:3"}, "wss://a.example", 3),
            ({"https_proxy": "p:4"}, "wss://a.example", 4),
            ({"https_proxy": "http://p:1", "no_proxy": "example"}, "wss://a.example", None),
            ({"https_proxy": "http://p:1", "NO_PROXY": "a.example"}, "wss://a.example", None),
            ({"http_proxy": "http://p:1"}, "wss://a.example", None),
            ({}, "wss://a.example", None),
        ],
    )
    def test_the_environment_is_read_as_others_read_it(
        self, environment: dict[str, str], url: str, port: int | None
    ) -> None:
        found = Proxies("env", environment).to(url)
        assert (found.port if found else None) == port

    def test_one_that_cannot_be_used_is_told_once(self, caplog: pytest.LogCaptureFixture) -> None:
        proxies = Proxies("env", {"all_proxy": "socks5://ann:s3cret@p:1080"})
        with caplog.at_level(logging.WARNING):
            assert proxies.to("wss://a.example") is None
            assert proxies.to("wss://a.example") is None
        (line,) = caplog.messages
        assert "all_proxy is passed over" in line
        assert "socks5://" in line
        assert "s3cret" not in line


class TestTunnel:
    def test_asks_for_the_host_and_says_who_asks(self) -> None:
        request = Tunnel(OFFICE, "a.example", 443).request.decode()
        head, *headers = request.removesuffix("\r\n\r\n").split("\r\n")
        assert head == "CONNECT a.example:443 HTTP/1.1"
        credentials = base64.b64encode(b"ann:s3cret/word").decode()
        assert headers == ["Host: a.example:443", f"Proxy-Authorization: Basic {credentials}"]

    def test_says_nothing_of_itself_where_nobody_is_named(self) -> None:
        request = Tunnel(Proxy("p", 1), "::1", 443).request
        assert request == b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n"

    @pytest.mark.parametrize(
        "answer", [b"HTTP/1.1 200 Connection established\r\nVia: p\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"]
    )
    def test_is_open_at_the_end_of_the_head_however_it_comes(self, answer: bytes) -> None:
        tunnel = Tunnel(OFFICE, "a.example", 443)
        opened = [tunnel.feed(answer[at : at + 1]) for at in range(len(answer))]
        assert opened == [False] * (len(answer) - 1) + [True]

    @pytest.mark.parametrize(
        ("proxy", "answer", "sentence"),
        [
            (OFFICE, b"HTTP/1.1 403 Forbidden\r\n\r\n", "HTTP 403 Forbidden"),
            (OFFICE, b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nno!", "HTTP 502 Bad Gateway"),
            (OFFICE, b"HTTP/1.1 407 No\r\n\r\n", "the user or the password in --upstream-proxy is wrong"),
            (Proxy("p", 1), b"HTTP/1.1 407 No\r\n\r\n", "it wants a user and a password"),
            (OFFICE, b"SSH-2.0-OpenSSH\r\n\r\n", "it does not answer in HTTP"),
            (OFFICE, b"", "it hung up"),
        ],
    )
    def test_a_refusal_names_the_proxy_and_the_cure(self, proxy: Proxy, answer: bytes, sentence: str) -> None:
        tunnel = Tunnel(proxy, "a.example", 443)
        with pytest.raises(TunnelRefused) as refusal:
            tunnel.feed(answer)
        assert f"the proxy {proxy} opens no tunnel to a.example:443: " in str(refusal.value)
        assert sentence in str(refusal.value)
        assert "s3cret" not in str(refusal.value)
