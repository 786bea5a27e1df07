"""Every command of examples/grpcurl.md runs as it stands there, and shows what the page says."""

from __future__ import annotations

import asyncio
import os
import re
import wave
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest

from tests.support.process import environment, running
from tests.support.tools import BUILD_PATIENCE_S, path_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "examples" / "grpcurl.md").read_text()
COMMANDS = [
    block
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    if not block.startswith(("go install ", "export GATEWAY="))
]


@pytest.mark.timeout(BUILD_PATIENCE_S + 180)
async def test_the_page_runs_from_top_to_bottom(tmp_path: Path) -> None:
    folder = await asyncio.to_thread(path_of, "grpcurl.py")
    async with running() as gateway:
        named = {"GATEWAY": gateway.target, "PATH": f"{folder}:{os.environ['PATH']}"}
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-eu", "-o", "pipefail", "-c", "\n".join(COMMANDS)),
            cwd=tmp_path,
            env=environment(named),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
        )
        printed = (await asyncio.wait_for(shell.communicate(), 120))[0].decode()
    assert shell.returncode == 0, printed
    with wave.open(str(tmp_path / "hello.wav")) as file:
        assert file.getframerate() == 24000
    assert len((tmp_path / "hello.wav").read_bytes()) > 24000
    for shown in (
        '"status": "SERVING"',
        "rpc SynthesizeStream (",
        "optional double speed",
        "utteranceCompleted",
        "STATE_APPLIED",
        "utteranceCancelled",
        '"text": "',
        '"languageCodes"',
        '"name": "upstream.connect"',
        "FIELD_INVALID",
        "exit code 67",
    ):
        assert shown in printed, f"{shown!r} is not in:\n{printed}"
