"""Warm processes: what a crash, a close and the parent's end do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip(
    "waves_local.speech", reason="the optional extra wavegate[speech] is not installed", exc_type=ImportError
)

from waves_local.engine import VoiceRequest
from waves_local.speech.espeak import EspeakSynthesizer
from waves_local.speech.workers import SpeechProcessError, WarmProcess

DEADLINE_S = 30.0


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_ended(*pids: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still running: {[pid for pid in pids if is_alive(pid)]}"
        time.sleep(0.01)


async def speak(synthesizer: EspeakSynthesizer) -> bytes:
    request = VoiceRequest("Hello.", "magnus")
    return b"".join([piece.pcm async for piece in synthesizer.synthesize(request) if hasattr(piece, "pcm")])


async def test_a_dead_warm_process_is_started_again() -> None:
    synthesizer = EspeakSynthesizer()
    try:
        before = await speak(synthesizer)
        process = synthesizer._process._process
        assert process is not None
        process.kill()
        assert await speak(synthesizer) == before
    finally:
        synthesizer.close()


async def test_many_who_find_it_dead_share_the_new_one() -> None:
    synthesizer = EspeakSynthesizer()
    try:
        before = await speak(synthesizer)
        process = synthesizer._process._process
        assert process is not None
        process.kill()
        assert await asyncio.gather(*[speak(synthesizer) for _ in range(10)]) == [before] * 10
    finally:
        synthesizer.close()


async def test_closing_stops_the_process_and_use_starts_it_again() -> None:
    synthesizer = EspeakSynthesizer()
    process = synthesizer._process._process
    assert process is not None
    synthesizer.close()
    synthesizer.close()
    assert process.poll() is not None
    assert await speak(synthesizer)
    synthesizer.close()


async def test_a_module_that_cannot_load_is_an_error_and_not_a_hang() -> None:
    broken = WarmProcess("waves_local.speech.no_such_module")
    with pytest.raises(SpeechProcessError, match="cannot be started"):
        await broken.connect()
    broken.close()


def test_the_processes_end_with_their_parent() -> None:
    """Even where it is killed: nothing is left behind."""
    script = (
        "import time\n"
        "from waves_local.speech import load_engine\n"
        "engine = load_engine()\n"
        "for part in (engine.synthesizer, engine.recognizer): print(part._process._process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline()) for _ in range(2)]
        try:
            assert all(is_alive(pid) for pid in pids)
        finally:
            parent.kill()
    try:
        wait_until_ended(*pids)
    finally:
        for pid in filter(is_alive, pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_a_process_that_forgets_to_close_still_ends_in_peace() -> None:
    script = "from waves_local.speech import load_engine\nengine = load_engine()\n"
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("missing", ["pocketsphinx", "espeakng_loader"])
def test_without_the_extra_the_import_says_what_to_type(missing: str) -> None:
    script = (
        "import importlib.util as util\n"
        "find_spec = util.find_spec\n"
        f"util.find_spec = lambda name, *rest: None if name == {missing!r} else find_spec(name, *rest)\n"
        "import waves_local.speech\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert ended.returncode == 1
    assert "ImportError: " in ended.stderr
    assert missing in ended.stderr
    assert "pip install 'wavegate[speech]'" in ended.stderr
