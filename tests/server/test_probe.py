"""`wavegate-server probe` before the local upstream, in each of its switches that a question is about."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import waves_local
from wavegate_server import app, errors
from wavegate_server.config import Config
from wavegate_server.probe import Finding, Probe, Times
from wavegate_server.session.context import UpstreamTarget
from wavegate_server.session.transport import DialOptions, WebSocketDialer

from tests.support.process import NO_UPSTREAM, finished

FAST = Times(
    quiet_s=0.4, answer_s=1.5, idle_s=1, ping_s=0.25, slot_wait_s=20.0, slot_poll_s=0.1, at_once_s=1.5
)
SETTINGS = {"model": "lightning_v3.1", "voice_id": "magnus"}
PACED = {"chunk_interval_s": 0.05, "chunk_s": 1.0}
"""Slower than at once, so that there is time to interrupt; about 15 s of speech take 0.8 s."""


async def ask(
    *topics: str, times: Times = FAST, settings: dict[str, Any] = SETTINGS, key: str = "a-key", **options: Any
) -> list[Finding]:
    """What is found of an upstream with these options."""
    async with waves_local.serve(
        engine=waves_local.deterministic_engine(), options=waves_local.Options(**options)
    ) as upstream:
        dialer = WebSocketDialer(DialOptions(ping_interval_s=times.ping_s))
        probe = Probe(UpstreamTarget(upstream.url, key), dialer, settings, times=times)
        return await probe.run(topics)


async def answers(topic: str, *variants: dict[str, Any]) -> list[str]:
    """What is found of several upstreams, asked side by side."""
    found = await asyncio.gather(*(ask(topic, **options) for options in variants))
    assert {f.topic for each in found for f in each} == {topic}
    return [f.answer for each in found for f in each]


async def test_continuations() -> None:
    found = await asyncio.gather(
        *(ask("continuations", continuations=each) for each in ("on", "ignored", "rejected"))
    )
    (on,), (ignored,), (rejected,) = found
    assert (on.answer, on.flags) == ("Yes.", ("--tts-protocol continuations",))
    assert ignored.answer == (
        "No: a sentence is not spoken before its text is closed. Text is to be streamed by flush, which works."
    )
    assert rejected.answer.startswith("No: they are refused (")
    assert ignored.flags == rejected.flags == ("--tts-protocol flush",)


async def test_how_often_complete_comes() -> None:
    variants = [{"complete_per": each} for each in ("turn", "release", "request", "none")]
    rest = "; the connection stays open after it. The gateway works with all of it, no flag is needed."
    assert await answers("complete", *variants) == [
        f"Once a turn (one, for 2 releases){rest}",
        f"Once a release (2){rest}",
        f"Once a message with text (3){rest}",
        "None came; the end of an utterance is found by quiet. The gateway works with all of it, no flag is needed.",
    ]


async def test_complete_that_closes() -> None:
    (says,) = await answers("complete", {"complete_closes": True})
    assert "the connection was closed after it (code 1000)" in says


async def test_text_while_speaking() -> None:
    variants = [{"text_while_speaking": each, **PACED} for each in ("queued", "rejected", "interrupts")]
    queued, rejected, interrupts = await answers("overlap", *variants)
    assert queued.startswith("It is spoken after the first, in order.")
    assert rejected.startswith("It is refused: ")
    assert interrupts.startswith("It takes the place of the first, which is cut short.")


async def test_cancel() -> None:
    variants = [{"cancel_answer": each, **PACED} for each in ("none", "complete", "cancelled")]
    *obeyed, ignored = await answers("cancel", *variants, {"cancel": "ignored", **PACED})
    for says, answered in zip(
        obeyed,
        ("It is not answered.", "It is answered by 'complete'.", "It is answered by 'cancelled'."),
        strict=True,
    ):
        assert re.fullmatch(rf"Yes, after \d\d?\.\d s of speech\. {answered}", says)
    assert ignored.startswith("No: the speech went on to its end (")


async def test_cancel_belongs_to_continuations() -> None:
    found = await ask("continuations", "cancel", continuations="rejected")
    assert found[1].answer.startswith("It belongs to continuations, which are not understood.")


@pytest.mark.parametrize("linger_s", [0, 3])
async def test_when_the_slot_is_free(linger_s: int) -> None:
    (finding,) = await ask(
        "slot", active_requests=1, slot_linger_s=float(linger_s), chunk_interval_s=0.3, chunk_s=0.3
    )
    (flag,) = finding.flags
    name, value = flag.split()
    assert name == "--upstream-slot-linger"
    if linger_s:
        assert finding.answer.startswith("No: it was free after")
        assert linger_s <= int(value) <= 15
    else:
        assert (finding.answer, value) == ("Yes.", "0")


async def test_a_slot_that_is_never_free() -> None:
    times = Times(quiet_s=0.3, answer_s=1.5, slot_wait_s=0.5, slot_poll_s=0.1)
    (finding,) = await ask(
        "slot", times=times, active_requests=1, slot_linger_s=60.0, chunk_interval_s=0.3, chunk_s=0.3
    )
    assert finding.answer == "No: it was not free within 0.5 s."
    assert finding.flags == ("--upstream-slot-linger 0.5",)


async def test_without_a_limit_the_slot_cannot_be_told() -> None:
    (finding,) = await ask("slot", **PACED)
    assert finding.answer.startswith("It cannot be told: 2 requests were spoken at once.")
    assert finding.flags == ()


async def test_blanks() -> None:
    silent, spoken, rejected, closed = await answers(
        "blank",
        {"blank_text": "silent"},
        {"blank_text": "spoken"},
        {"blank_text": "rejected"},
        {"blank_text": "rejected", "error_closes": True},
    )
    assert silent.startswith("Yes, and the connection goes on.")
    assert spoken == "No: it makes 0.1 s of sound, which the gateway drops."
    assert rejected.startswith("No, it is refused: ")
    assert closed.startswith("No, it is refused: ")


async def test_pings_and_the_idle_clock() -> None:
    ignored, heard = await answers("ping", {}, {"ping_resets_idle": True})
    assert ignored.startswith("No: with timeout=1 it was closed after ")
    assert heard.startswith("Yes, or it does not obey `timeout`: with timeout=1 the connection lived for ")


async def test_transcription_times() -> None:
    restart, run_on = await answers("times", {}, {"stt_times_restart": False})
    assert restart.startswith("Yes (")
    assert run_on.startswith("No: they run on (")


# -- what cannot be asked -------------------------------------------------------------------------------------


async def test_a_key_that_is_refused() -> None:
    with pytest.raises(errors.UpstreamCredential):
        await ask("continuations", key="bad", keys=("good",))


async def test_a_voice_that_is_not_there_is_no_matter_of_continuations() -> None:
    with pytest.raises(errors.UpstreamRejected, match=r"whichever way it is sent: .*--default-voice"):
        await ask("continuations", settings={**SETTINGS, "voice_id": "nobody"})


async def test_one_question_that_fails_does_not_end_the_others() -> None:
    found = await ask("continuations", "times", "blank", stt_models=("other",))
    assert [f.topic for f in found] == ["continuations", "blank", "times"]
    assert re.match(r"This could not be settled: .*400", found[2].answer)
    assert found[1].answer.startswith("Yes")


# -- the command ----------------------------------------------------------------------------------------------


async def test_an_upstream_that_is_not_there_is_one_sentence() -> None:
    code, out, err = await finished("probe", *NO_UPSTREAM)
    assert (code, out) == (2, "")
    asked, said = err.splitlines()
    assert asked == "… Are continuations (context_id) understood?"
    assert re.fullmatch(r"wavegate-server: the upstream cannot be asked: .*127\.0\.0\.1:9.*", said)


async def test_a_bad_key_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.touch(0o600)
    path.write_text("a-bad-key\n")
    async with waves_local.serve(
        engine=waves_local.deterministic_engine(), options=waves_local.Options(keys=("good",))
    ) as upstream:
        code, out, err = await finished("probe", "--upstream", upstream.url, "--api-key-file", str(path))
    assert (code, out) == (2, "")
    said = err.splitlines()[1:]
    assert len(said) == 1
    assert re.fullmatch(r"wavegate-server: the upstream cannot be asked: .*401.*", said[0])
    assert "a-bad-key" not in err


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command with these times, and three of the questions."""
    monkeypatch.setattr(app, "Times", lambda: FAST)
    run = Probe.run
    monkeypatch.setattr(Probe, "run", lambda self: run(self, ("continuations", "blank", "times")))


@pytest.mark.usefixtures("quick")
async def test_what_the_command_says(capsys: pytest.CaptureFixture[str]) -> None:
    options = waves_local.Options(continuations="rejected", blank_text="rejected")
    async with waves_local.serve(engine=waves_local.deterministic_engine(), options=options) as upstream:
        config = Config(upstream=upstream.url)
        assert await asyncio.to_thread(app.probe, config, as_json=False) == 0
        plain = capsys.readouterr().out
        assert await asyncio.to_thread(app.probe, config, as_json=True) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [f["topic"] for f in found] == ["continuations", "blank", "times"]
    assert found[0]["flags"] == ["--tts-protocol flush"]
    assert found[1]["answer"].startswith("No, it is refused")
    lines = plain.splitlines()
    assert lines[0] == "Are continuations (context_id) understood?"
    assert lines[1].startswith("  No: they are refused (")
    assert lines[-1] == "Flags for this upstream: --tts-protocol flush"
