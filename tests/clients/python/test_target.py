"""Addresses of gateways: written right or wrong, on this machine or behind a proxy."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import grpc
import pytest
import wavegate
from grpc import aio
from wavegate._target import Proxy, check_target, host_of, is_loopback, proxy_to
from wavegate.errors import GatewayUnavailableError

from tests.clients.python.fake_gateway import FakeGateway
from tests.support.certificates import Certificates
from tests.support.connect_proxy import connect_proxy

PROXY_VARIABLES = (
    "http_proxy",
    "https_proxy",
    "grpc_proxy",
    "no_proxy",
    "no_grpc_proxy",
    "all_proxy",
)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:50051",
        "localhost:1",
        "gateway.example:65535",
        "[::1]:50051",
        "unix:/run/wavegate.sock",
        "unix-abstract:wavegate",
        "dns:///gateway.example:50051",
        "ipv4:127.0.0.1:50051,127.0.0.2:50051",
        "xds:///gateway",
    ],
)
def test_what_is_written_right_stays_as_it_is(target: str) -> None:
    assert check_target(target, tls=False) == target
    assert wavegate.Client(target).target == target


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("127.0.0.1", "'127.0.0.1' names no port: write 127.0.0.1:50051, or wherever it listens"),
        ("[::1]", "'[::1]' names no port: write [::1]:50051, or wherever it listens"),
        ("::1", "an IPv6 address stands in brackets: write [::1]:PORT, not '::1'"),
        ("::1:50051", "an IPv6 address stands in brackets"),
        ("http://127.0.0.1:50051", "a target has no http:// in front: write 127.0.0.1:50051"),
        ("http://127.0.0.1:50051/", "write 127.0.0.1:50051"),
        ("http://gateway.example", "write gateway.example:50051"),
        ("https://gateway.example", "write gateway.example:443, and --tls"),
        ("grpcs://gateway.example:99/x", "write gateway.example:99, and --tls"),
        ("ws://a:b@gateway.example:99", "write gateway.example:99"),
        ("127.0.0.1:port", "'port' is no port: write a number from 1 to 65535, as in 127.0.0.1:50051"),
        ("127.0.0.1:0", "'0' is no port"),
        ("127.0.0.1:65536", "'65536' is no port"),
        ("127.0.0.1:", "'' is no port"),
        (":50051", "':50051' is no HOST:PORT"),
        ("gate way:50051", "'gate way:50051' is no HOST:PORT"),
        ("", "the target is empty"),
        (" ", "the target is empty"),
    ],
)
def test_what_is_written_wrong_is_told_with_what_to_write(target: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        check_target(target, tls=False)
    if target:
        with pytest.raises(ValueError, match=re.escape(sentence)):
            wavegate.Client(targets=[target])


def test_with_tls_the_port_may_be_left_out() -> None:
    assert check_target("gateway.example", tls=True) == "gateway.example"


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("a:1", "a"),
        ("[::1]:1", "::1"),
        ("dns:///a:1", "a"),
        ("dns://8.8.8.8/a:1", "a"),
        ("dns:a:1", "a"),
        ("ipv6:[::1]:1", "::1"),
        ("unix:/a", ""),
        ("a", "a"),
    ],
)
def test_the_host_of_a_target(target: str, host: str) -> None:
    assert host_of(target) == host


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("127.0.0.1:1", True),
        ("127.255.0.9:1", True),
        ("127.1:1", True),
        ("[::1]:1", True),
        ("[::ffff:127.0.0.1]:1", True),
        ("localhost:1", True),
        ("LocalHost.:1", True),
        ("gateway.localhost:1", True),
        ("0.0.0.0:1", True),
        ("unix:/run/a.sock", True),
        ("ipv4:127.0.0.1:1", True),
        ("10.0.0.1:1", False),
        ("localhost.example:1", False),
        ("[fd00::1]:1", False),
        ("gateway:1", False),
    ],
)
def test_what_is_this_machine(target: str, local: bool) -> None:
    assert is_loopback(target) is local


@pytest.mark.parametrize(
    ("environment", "named_by"),
    [
        ({"http_proxy": "http://p:1"}, "http_proxy"),
        ({"https_proxy": "http://p:1", "http_proxy": "http://q:1"}, "https_proxy"),
        ({"grpc_proxy": "http://p:1", "https_proxy": "http://q:1"}, "grpc_proxy"),
        ({"http_proxy": "http://u:secret@p:1"}, "http_proxy"),
        ({"http_proxy": "http://p:1", "no_proxy": "b.example"}, "http_proxy"),
        ({"http_proxy": "http://p:1", "no_proxy": "b.example, a.example"}, None),
        ({"http_proxy": "http://p:1", "no_proxy": "example"}, None),
        ({"http_proxy": "http://p:1", "no_grpc_proxy": "b", "no_proxy": "a.example"}, "http_proxy"),
        ({"https_proxy": "https://p:1"}, None),
        ({"https_proxy": "socks5://p:1"}, None),
        ({"HTTP_PROXY": "http://p:1"}, None),
        ({}, None),
    ],
)
def test_the_proxy_that_grpc_takes(environment: dict[str, str], named_by: str | None) -> None:
    found = proxy_to("a.example:50051", {}, environment)
    assert found == (Proxy("http://p:1", named_by) if named_by else None)
    assert proxy_to("a.example:50051", {"grpc.enable_http_proxy": 0}, environment) is None


def test_networks_are_exempt_too() -> None:
    environment = {"http_proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}
    assert proxy_to("10.1.2.3:1", {}, environment) is None
    assert proxy_to("11.1.2.3:1", {}, environment) is not None


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
async def test_no_proxy_leads_to_this_machine(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    async with connect_proxy({}) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        async with wavegate.Client(gateway.target) as client:
            assert [s async for s in client.list_sessions()] == []
        async with wavegate.Client(gateway.target.replace("127.0.0.1", "localhost")) as client:
            assert [s async for s in client.list_sessions()] == []
        assert proxy.tunnels == []


async def test_elsewhere_the_proxy_is_taken_and_where_it_refuses_it_is_named(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(gateway.target.rpartition(":")[2])
    hosts = {"gateway.invalid:50051": port}
    async with connect_proxy(hosts, user="ann", password="s3cret") as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        async with wavegate.Client("gateway.invalid:50051") as client:
            assert [s async for s in client.list_sessions()] == []
        assert proxy.tunnels == ["gateway.invalid:50051"]
        proxy.status = 403
        async with wavegate.Client("gateway.invalid:50051") as client:
            with pytest.raises(GatewayUnavailableError) as refused:
                await client.get_session("s")
            with pytest.raises(GatewayUnavailableError) as refused_in_session:
                async with client.synthesize(voice_id="magnus"):
                    pass
    for failure in (refused.value, refused_in_session.value):
        assert str(failure).startswith(
            f"no gateway at gateway.invalid:50051 through the proxy http://127.0.0.1:{proxy.port} (https_proxy)"
        )
        assert "403" in str(failure)
        assert str(failure).endswith("with no_proxy=gateway.invalid it is reached directly")
        assert "s3cret" not in str(failure)


async def test_the_callers_own_options_win(gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connect_proxy({}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        options = [("grpc.enable_http_proxy", 1)]
        async with wavegate.Client(gateway.target, options=options) as client:
            with pytest.raises(GatewayUnavailableError, match=r"through the proxy .* \(http_proxy\)"):
                await client.get_session("s")
        assert proxy.tunnels == [gateway.target]


class TestTls:
    @pytest.fixture
    def made(self, tmp_path: Path) -> Certificates:
        if not Certificates.possible():
            pytest.skip("there is no openssl to make certificates with")
        return Certificates(tmp_path)

    async def serve(self, made: Certificates, name: str = "server", *, ask: bool = False) -> aio.Server:
        server = aio.server()
        self.port = server.add_secure_port(
            "127.0.0.1:0",
            grpc.ssl_server_credentials(
                [(made.read(f"{name}.key"), made.read(f"{name}.pem"))],
                made.read("ca.pem") if ask else None,
                ask,
            ),
        )
        await server.start()
        return server

    async def why(self, **options: object) -> str:
        async with wavegate.Client(f"127.0.0.1:{self.port}", **options) as client:  # type: ignore[arg-type]
            with pytest.raises(GatewayUnavailableError, match=r"no gateway at 127\.0\.0\.1:") as failure:
                await client.get_session("s")
        return str(failure.value)

    async def test_what_is_wrong_between_the_two_is_told_with_the_cure(self, made: Certificates) -> None:
        ca = made.read("ca.pem")
        server = await self.serve(made)
        assert "if it serves TLS, connect with --tls or --ca-file" in await self.why()
        assert "not trusted here; name the authority with --ca-file" in await self.why(tls=True)
        await server.stop(0)
        server = await self.serve(made, "client")
        assert "the certificate there is for another name" in await self.why(root_certificates=ca)
        await server.stop(0)
        server = await self.serve(made, ask=True)
        assert "asks for its callers' certificates" in await self.why(root_certificates=ca)
        await server.stop(0)

    async def test_clear_text_behind_tls(self, gateway: FakeGateway) -> None:
        self.port = int(gateway.target.rpartition(":")[2])
        assert "does not speak TLS; connect without --tls" in await self.why(tls=True)


async def test_what_is_no_gateway_at_all() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with wavegate.Client(f"127.0.0.1:{port}") as client:
        with pytest.raises(GatewayUnavailableError, match="speaks HTTP/1"):
            await client.get_session("s")
    server.close()


async def test_grpc_writes_nothing_of_its_own(gateway: FakeGateway) -> None:
    """Of a handshake that fails, which its core notes on stderr by default. The environment stays as it was."""
    program = (
        "import os, sys, wavegate, wavegate.sync\n"
        "assert 'GRPC_VERBOSITY' not in os.environ\n"
        "try:\n"
        "    wavegate.sync.Client(sys.argv[1], tls=True).get_session('s')\n"
        "except wavegate.WavegateError as error:\n"
        "    print(error)\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, gateway.target),
        stdout=PIPE,
        stderr=PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("GRPC_")},
    )
    out, err = await process.communicate()
    assert b"does not speak TLS" in out
    assert err == b""
