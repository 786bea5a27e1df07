"""Warm processes: what a crash, a close and the parent's end do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip(
    "waves_local.speech", reason="the optional extra wavegate[speech] is not installed", exc_type=ImportError
)

from waves_local.engine import VoiceRequest
from waves_local.speech.espeak import EspeakSynthesizer
from waves_local.speech.workers import SpeechProcessError, WarmProcess

DEADLINE_S = 30.0
needs_sphinx = pytest.mark.skipif(
    find_spec("pocketsphinx") is None, reason="pocketsphinx is not installed: make speech says what it lacks"
)


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


@needs_sphinx
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


def without(*engines: str) -> str:
    """The beginning of a script that runs where these engines are not installed."""
    return (
        "import importlib.util as util\n"
        "find_spec = util.find_spec\n"
        f"util.find_spec = lambda name, *rest: None if name in {engines!r} else find_spec(name, *rest)\n"
    )


def outcome_of(script: str) -> tuple[int, str, str]:
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    return ended.returncode, ended.stdout, ended.stderr


def test_without_any_engine_the_import_says_what_to_type() -> None:
    code, _, err = outcome_of(without("pocketsphinx", "espeakng_loader") + "import waves_local.speech\n")
    assert code == 1
    assert "ImportError: " in err
    assert "pip install 'wavegate[speech]'" in err


# A local upstream with one engine, asked for what it can do and for what it cannot, over HTTP and by WebSocket.
_ASKED = """
import asyncio, sys, aiohttp
from waves_local import serve
from waves_local.speech import load_engine

async def main():
    engine = load_engine()
    async with serve(engine=engine) as upstream, aiohttp.ClientSession(headers={"Authorization": "Bearer x"}) as http:
        for path in ("tts/live", "stt/live?model=pulse&language=en"):
            try:
                async with http.ws_connect(f"{upstream.url}/waves/v1/{path}"):
                    print("open")
            except aiohttp.WSServerHandshakeError as refused:
                print(refused.status)
        body = {"text": "Hello.", "voice_id": "magnus", "model": "lightning_v3.1", "sample_rate": 16000}
        async with http.post(f"{upstream.url}/waves/v1/tts", json=body) as answer:
            said = await answer.read()
            print(answer.status, len(said) > 8000 or said.decode())
        params = {"model": "pulse", "encoding": "linear16", "sample_rate": "16000"}
        async with http.post(f"{upstream.url}/waves/v1/stt/", params=params, data=bytes(16000)) as answer:
            print(answer.status, await answer.text())
        async with http.get(f"{upstream.url}/waves/v1/lightning-v3.1/get_voices") as answer:
            print(answer.status, len((await answer.json())["voices"]) > 5)
    engine.synthesizer.close()
    engine.recognizer.close()

asyncio.run(main())
"""


def test_what_can_speak_but_not_listen_still_speaks() -> None:
    code, out, err = outcome_of(without("pocketsphinx") + _ASKED)
    assert (code, err) == (0, "")
    speaks, listens, spoken, heard, voices = out.splitlines()
    assert (speaks, listens, spoken, voices) == ("open", "400", "200 True", "200 True")
    assert "400" in heard
    assert "cannot listen" in heard
    assert "make speech" in heard


@needs_sphinx
def test_what_can_listen_but_not_speak_still_listens() -> None:
    code, out, err = outcome_of(without("espeakng_loader") + _ASKED)
    assert (code, err) == (0, "")
    speaks, listens, spoken, heard, voices = out.splitlines()
    assert (speaks, listens, voices) == ("400", "open", "200 True")
    assert heard.startswith("200 ")
    assert "cannot speak" in spoken
    assert "make speech" in spoken
