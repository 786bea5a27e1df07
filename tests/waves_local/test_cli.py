"""`waves-local`, run as users run it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import click
import httpx
import pytest
from click.testing import CliRunner
from waves_local import Options, cli
from waves_local.faults import Action

from tests.waves_local.support import AUTH, PATIENCE_S

PROGRAM = [sys.executable, "-c", "from waves_local.cli import main; main()"]


@contextlib.asynccontextmanager
async def running(
    *arguments: str, **environment: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The program, and its first line."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAM,
        *arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = (await process.stdout.readline()).decode()
        yield process, line
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_it_says_where_it_listens_serves_and_ends_on_a_signal(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    port_file.write_text("1")  # of an earlier run
    for signum in (signal.SIGTERM, signal.SIGINT):
        async with running(
            "--listen", "127.0.0.1:0", "--engine", "deterministic", "--port-file", str(port_file)
        ) as (
            process,
            line,
        ):
            assert re.fullmatch(
                r"waves-local listens on http://127\.0\.0\.1:\d+ \(deterministic engine\)\n", line
            )
            url = line.split()[3]
            assert url.endswith(":" + port_file.read_text().strip())
            async with httpx.AsyncClient(headers=AUTH) as client:
                assert (await client.get(f"{url}/waves/v1/lightning-v3.1/get_voices")).status_code == 200
            process.send_signal(signum)
            async with asyncio.timeout(PATIENCE_S):
                assert await process.wait() == 0
            assert os.listdir(tmp_path) == [], "neither the file is left, nor its draft"


def test_an_old_port_is_gone_before_the_new_one_is_known(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    port_file.write_text("1")
    with cli._port_file(port_file) as write:
        assert not port_file.exists()
        write(50051)
        assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("port", "50051\n")]
    assert not port_file.exists()
    with (
        pytest.raises(click.ClickException, match="Cannot write"),
        cli._port_file(tmp_path / "no" / "port") as w,
    ):
        w(1)


async def test_switches_keys_and_faults_take_effect() -> None:
    async with running(
        "--listen=127.0.0.1:0", "--engine=deterministic", "--key=good", "--key=better", "--old-tts-paths=gone",
        "--fault=voices:refuse=418,nth=1",
    ) as (_, line), httpx.AsyncClient(base_url=line.split()[3]) as client:  # fmt: skip
        path = "/waves/v1/lightning-v3.1/get_voices"
        statuses = [
            (await client.get(path, headers={"Authorization": f"Bearer {key}"})).status_code
            for key in ("good", "good", "better", "bad")
        ]
        assert statuses == [418, 200, 200, 401]
        assert (await client.post("/waves/v1/lightning-v3.1/stream")).status_code == 410


async def test_the_environment_is_read() -> None:
    environment = {
        "WAVES_LOCAL_LISTEN": "127.0.0.1:0",
        "WAVES_LOCAL_ENGINE": "deterministic",
        "WAVES_LOCAL_KEY": "good",
    }
    async with running(**environment) as (_, line), httpx.AsyncClient(base_url=line.split()[3]) as client:
        assert "deterministic" in line
        response = await client.get("/waves/v1/lightning-v3.1/get_voices", headers=AUTH)
        assert response.status_code == 401


async def test_a_taken_port_is_one_clear_sentence() -> None:
    async with running("--listen=127.0.0.1:0", "--engine=deterministic") as (_, line):
        port = line.split()[3].rsplit(":", 1)[1]
        async with running(f"--listen=127.0.0.1:{port}", "--engine=deterministic") as (process, first):
            _, errors = await process.communicate()
            assert (process.returncode, first) == (1, "")
            assert errors.decode().startswith(f"Error: Cannot listen on 127.0.0.1:{port}: ")
            assert len(errors.decode().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--listen", "8090"], "is not HOST:PORT"),
        (["--listen", "localhost:70000"], "is not HOST:PORT"),
        (["--fault", "tts:explode"], "'explode' is none of"),
        (["--complete-per", "day"], "Invalid value for '--complete-per'"),
        (["--chunk-s", "0"], "chunk_s must be more than 0"),
        (["--active-requests", "-1"], "active_requests must not be negative"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(cli._command, ["--engine", "deterministic", *arguments])
    assert result.exit_code == 2
    assert complaint in result.output


def test_without_the_extra_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name="espeakng_loader")

    monkeypatch.setattr(cli.importlib, "import_module", missing)
    result = CliRunner().invoke(cli._command, ["--engine", "speech", "--listen", "127.0.0.1:0"])
    assert result.exit_code == 1
    assert "pip install 'wavegate[speech]'" in result.output
    assert "--engine deterministic" in result.output


def test_every_option_is_a_switch_with_its_help() -> None:
    text = re.sub(r"\s+", "", CliRunner().invoke(cli._command, ["--help"]).output)
    switches = {parameter.name for parameter in cli._command.params}
    for option in dataclasses.fields(Options):
        assert option.name in switches
        assert re.sub(r"\s+", "", option.metadata["help"]) in text


def test_every_switch_is_in_the_guide() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "waves-local.md").read_text()
    for parameter in cli._command.params:
        assert f"`{parameter.opts[0]}" in guide
    for option in dataclasses.fields(Options):
        assert option.metadata["help"] in guide
    for action in get_args(Action):
        assert f"`{action}" in guide
