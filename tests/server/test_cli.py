"""The command line: every mistake is one sentence and exit code 2, at once."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from wavegate_server import app, cli, config, local
from wavegate_server.config import Address, Config

from tests.support.certificates import Certificates
from tests.support.process import NO_UPSTREAM, environment, finished, running


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in os.environ.keys() - environment().keys():
        monkeypatch.delenv(name)


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """What the gateway would have been started with; it is not started."""
    found: list[Config] = []

    def run(config: Config) -> int:
        found.append(config)
        return 0

    monkeypatch.setattr(app, "run", run)
    return found


def main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """Run the command in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["wavegate-server", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


def test_without_arguments_the_defaults_hold(monkeypatch: pytest.MonkeyPatch, chosen: list[Config]) -> None:
    assert main(monkeypatch) == 0
    assert chosen == [Config()]


def test_every_flag_sets_its_field(monkeypatch: pytest.MonkeyPatch, chosen: list[Config]) -> None:
    """One run with all flags, one with all variables: the same configuration, nothing left at its default."""
    values = {option.name: another_value(option) for option in config.options()}
    flags = [
        part
        for option in config.options()
        for part in ([option.flag] if option.parse is None else [option.flag, values[option.name]])
    ]
    assert main(monkeypatch, *flags) == 0
    for option in config.options():
        monkeypatch.setenv(option.env, values[option.name])
    assert main(monkeypatch) == 0
    by_flag, by_variable = chosen
    assert by_flag == by_variable
    for option in config.options():
        assert getattr(by_flag, option.name) != option.default, option.name


def another_value(option: config.Option) -> str:
    """A good value that is not the default."""
    if option.parse is None:
        return "on"
    if option.name in ("metrics_listen", "upstream_proxy"):
        return "off"
    if option.name == "metric_labels":
        return "team,stage"
    if "|" in option.unit and option.name != "upstream":
        return next(choice for choice in option.unit.split("|") if choice != option.default)
    return {
        "HOST:PORT": "[::1]:1",
        "PATH": "/somewhere/else",
        "URL|local": "local",
        "MODEL": "another",
        "VOICE": "another",
        "TAG": "fr",
        "COUNT": "7",
        "BYTES": "8192",
        "CHARS": "9",
        "SECONDS": "11",
        "RATIO": "0.5",
    }[option.unit]


def test_a_flag_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch, chosen: list[Config]) -> None:
    monkeypatch.setenv("WAVEGATE_LISTEN", "127.0.0.1:1")
    monkeypatch.setenv("WAVEGATE_PORT_FILE", "")
    assert main(monkeypatch, "--listen", "127.0.0.1:2") == 0
    assert chosen[0].listen == Address("127.0.0.1", 2)
    assert chosen[0].port_file is None, "an empty variable is none"


@pytest.mark.parametrize("said", ["on", "true", "YES", "1"])
def test_switches_by_variable(monkeypatch: pytest.MonkeyPatch, chosen: list[Config], said: str) -> None:
    monkeypatch.setenv("WAVEGATE_EXPIRE_CONTENT", said)
    monkeypatch.setenv("WAVEGATE_OLD_TTS_PATH", "off")
    assert main(monkeypatch) == 0
    assert (chosen[0].expire_content, chosen[0].old_tts_path) == (True, False)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--listen", "nowhere"], "--listen: must be HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], "--listen: the port must be from 0 to 65535"),
        (["--upstream", "ftp://x"], "--upstream: must be 'local' or a URL"),
        (["--max-sessions", "-1"], "--max-sessions: must be from 0 to 1000000, got -1"),
        (["--idle-timeout", "nan"], "--idle-timeout: must be from 1 to 604800 seconds, got nan"),
        (["--log-level", "loud"], "--log-level: must be debug, info, warning or error"),
        (["--bogus"], "No such option '--bogus'"),
        (["--listen"], "'--listen' requires an argument"),
        (["serve"], "No such command 'serve'"),
        (["healthcheck", "--target", "x"], "--target: must be HOST:PORT"),
    ],
)
def test_a_wrong_argument_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    chosen: list[Config],
    arguments: list[str],
    sentence: str,
) -> None:
    assert main(monkeypatch, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"wavegate-server: .*\n", err), "one line"
    assert sentence in err
    assert chosen == []


def test_a_wrong_variable_is_called_by_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], chosen: list[Config]
) -> None:
    monkeypatch.setenv("WAVEGATE_DRAIN_TIMEOUT", "soon")
    monkeypatch.setenv("WAVEGATE_OLD_STT_PATH", "perhaps")
    assert main(monkeypatch) == 2
    assert "WAVEGATE_OLD_STT_PATH: must be on or off, got 'perhaps'" in capsys.readouterr().err
    monkeypatch.delenv("WAVEGATE_OLD_STT_PATH")
    assert main(monkeypatch) == 2
    assert "WAVEGATE_DRAIN_TIMEOUT: must be a number of seconds, got 'soon'" in capsys.readouterr().err


def test_help_says_all_of_each_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(monkeypatch, "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for option in config.options():
        assert f"{option.flag} {option.unit}".strip() in shown
        assert f"{option.help} [{option.env}; default: {option.shown_default}]" in shown


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(monkeypatch, "--version") == 0
    assert re.fullmatch(r"wavegate-server \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "env", "sentence"),
    [
        (("--listen", "0.0.0.0:0"), {}, "there is no API key"),
        (("--upstream", "wss://api.example"), {}, "wss://api.example needs an API key"),
        ((*NO_UPSTREAM, "--listen", "192.0.2.1:0"), {}, "cannot listen on 192.0.2.1:0: cannot assign"),
        ((*NO_UPSTREAM, "--auth-tokens-file", "/dev/null"), {}, "it holds no token"),
        ((*NO_UPSTREAM, "--tls-cert", "/nowhere"), {}, "TLS needs both"),
        ((*NO_UPSTREAM, "--default-stt-language", "no tag"), {}, "--default-stt-language: must be"),
        ((*NO_UPSTREAM, "--port-file", "/nowhere/port"), {}, "--port-file /nowhere/port cannot be written"),
        (("--api-key-file", "/nowhere"), {}, "the API key file /nowhere cannot be read"),
        (
            NO_UPSTREAM,
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL must be grpc or http/protobuf",
        ),
    ],
)
def test_a_gateway_that_cannot_start_says_why(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    env: dict[str, str],
    sentence: str,
) -> None:
    monkeypatch.setattr(app.logs, "configure", lambda *_: None)  # logging is this process's, too
    monkeypatch.setenv("WAVEGATE_LISTEN", "127.0.0.1:0")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert main(monkeypatch, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"wavegate-server: .*\n", err), "one line"
    assert sentence in err


def test_missing_speech_engines_are_said_with_the_cure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app.logs, "configure", lambda *_: None)
    monkeypatch.setattr(local, "SPEECH_MODULES", {"no_such_engine": "speak", "nor_this": "listen"})
    assert main(monkeypatch, "--listen", "127.0.0.1:0") == 2
    said = capsys.readouterr().err
    assert "pip install 'wavegate[speech]'" in said
    assert "make speech" in said


@pytest.mark.parametrize(
    ("engine", "there", "lacks"),
    [
        ("speech", ("espeakng_loader",), "cannot listen: pocketsphinx is not installed"),
        ("speech", ("pocketsphinx",), "cannot speak: espeakng_loader is not installed"),
        ("speech", ("espeakng_loader", "pocketsphinx"), None),
        ("deterministic", (), None),
    ],
)
def test_one_speech_engine_is_enough_to_start_and_the_other_is_asked_for(
    engine: str, there: tuple[str, ...], lacks: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local.importlib.util, "find_spec", lambda name: name if name in there else None)
    upstream = local.LocalUpstream(engine)
    upstream.check()
    if lacks is None:
        assert upstream.lacks == ""
    else:
        assert lacks in upstream.lacks
        assert "make speech" in upstream.lacks


# -- as a process ---------------------------------------------------------------------------------------------


async def test_two_gateways_cannot_have_one_port() -> None:
    async with running(*NO_UPSTREAM) as first:
        code, _, err = await finished(*NO_UPSTREAM, "--listen", first.target)
        assert (code, err) == (
            2,
            f"wavegate-server: cannot listen on {first.target}: address already in use\n",
        )


async def test_healthcheck(tmp_path: Path) -> None:
    async with running(*NO_UPSTREAM) as gateway:
        asked = ("healthcheck", "--timeout", "30")
        assert await finished(*asked, "--target", gateway.target) == (0, "SERVING\n", "")
        by_variable = {"WAVEGATE_LISTEN": f"0.0.0.0:{gateway.port}"}
        assert await finished(*asked, env=by_variable) == (0, "SERVING\n", "")
        target = gateway.target
    code, out, err = await finished(*asked, "--target", target)
    assert (code, out) == (1, "")
    assert f"no answer from {target}: UNAVAILABLE" in err


async def test_healthcheck_over_tls(certificates: Certificates) -> None:
    folder = certificates.folder
    tls = ("--tls-cert", str(folder / "server.pem"), "--tls-key", str(folder / "server.key"))
    ca = str(folder / "ca.pem")
    async with running(*NO_UPSTREAM, *tls) as gateway:
        assert gateway.banner[-1].endswith(f"--target {gateway.target} --tls")
        asked = ("healthcheck", "--target", gateway.target, "--timeout", "30")
        assert await finished(*asked, "--tls-ca", ca) == (0, "SERVING\n", "")
        assert (await finished(*asked, "--tls-ca", ca, "--tls-server-name", "elsewhere"))[0] == 1
