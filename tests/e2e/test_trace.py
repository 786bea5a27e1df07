"""`wavegate trace` as its users run it: a gateway and the command line, each a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import wavegate

from tests.support.process import PATIENCE_S, environment, running

UPSTREAM = ("--upstream", "local", "--local-engine", "deterministic")
NO_JAEGER = "http://127.0.0.1:1"
# Whatever listens on Jaeger's port here is not this test's.
_ALONE = (
    f"import sys\nfrom wavegate.cli import main, trace\ntrace.DEFAULT_URL = {NO_JAEGER!r}\nsys.exit(main())\n"
)


async def command(*arguments: str, cwd: Path) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _ALONE, *arguments), stdout=PIPE, stderr=PIPE, env=environment(), cwd=cwd
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_session_is_shown_after_it_and_later(tmp_path: Path) -> None:
    async with running(*UPSTREAM) as gateway:
        target = ("--target", gateway.target)
        code, out, err = await command("say", "Hello there.", "-o", "a.wav", "--trace", *target, cwd=tmp_path)
        assert code == 0, err
        for part in ("SynthesizeStream", "session.open", "upstream.connect", "text_to_speech", "chunk.out ×"):
            assert part in out, out
        assert "◆ first audio" in out
        assert "Where the time went" in out
        assert "not ended" not in out

        words = out.split()
        for key in (words[words.index("trace") + 1], words[words.index("session") + 1]):
            assert (await command("trace", key, *target, cwd=tmp_path)) == (0, out, "")

        code, as_json, _ = await command("trace", key, "--json", *target, cwd=tmp_path)
        *spans, spent = map(json.loads, as_json.splitlines())
        chunks = [s for s in spans if s["name"] == "chunk.out"]
        assert f"chunk.out ×{len(chunks)} " in out
        code, one_by_one, _ = await command("trace", key, "--all", *target, cwd=tmp_path)
        assert one_by_one.count("chunk.out #") == len(chunks) > 1
        assert spent["audio_s"] > 0.5
        shares = ("input_s", "account_s", "upstream_s", "gateway_s", "client_s")
        assert 0 < sum(spent[name] for name in shares) <= spent["total_s"] + 1e-5

        code, out, err = await command("trace", "s-unknown", *target, cwd=tmp_path)
        assert (code, out) == (4, "")
        assert "no span of 's-unknown' is held" in err


async def test_a_live_session_is_shown_as_far_as_it_is(tmp_path: Path) -> None:
    async with (
        running(*UPSTREAM) as gateway,
        wavegate.Client(gateway.target) as client,
        client.synthesize(voice_id="magnus") as session,
    ):
        assert await (await session.say("Hello there.")).read()
        code, out, err = await command("trace", session.session_id, "--target", gateway.target, cwd=tmp_path)
    assert (code, err) == (0, "")
    assert "(not ended yet)" in out
    assert "spans that have not ended are not here" in out.replace("\n", " ")
    assert "chunk.out ×" in out
