"""A card number that was said while it was to be hidden stays hidden, with engines that really speak and listen."""

from __future__ import annotations

from typing import Any

import pytest
from wavegate.speech import v1
from waves_local.engine import Engine

from tests.e2e.test_transcription import END, Listening, audio, start, update
from tests.support.gateway import running_gateway
from tests.waves_local_speech.test_sphinx import BUS, quiet, spoken

CARD = "my card number is " + " ".join(["four", *["one"] * 15])


@pytest.mark.parametrize("switch", [{"redact_pci": False}, {"language_code": "en-GB", "redact_pci": False}])
async def test_redaction_that_is_turned_off_shows_nothing_of_before(
    engine: Engine, switch: dict[str, Any]
) -> None:
    first, _ = await spoken(engine, CARD)
    second, _ = await spoken(engine, BUS)
    first += quiet(0.2)
    async with running_gateway(engine=engine) as gateway:
        call = Listening(gateway.transcription.TranscribeStream())
        await call.say(start(redact_pci=True, word_timings=True), *audio(first))
        await call.say(update(1, **switch), *audio(second + quiet(0.8)), END)
        await call.rest()
    finals = [t for t in call.transcripts if t.is_final and t.text]
    hidden = " ".join(t.text for t in finals if t.settings_revision == 1)
    assert hidden.startswith("My card number is [ACCOUNTNUMBER_1]")
    assert not any(c.isdigit() for c in hidden.replace("ACCOUNTNUMBER_1", ""))
    assert "one one" not in hidden
    assert " ".join(t.text for t in finals if t.settings_revision == 2).lower().strip(".") == BUS
    (applied,) = [a for a in call.all("settings_ack") if a.state == v1.SettingsAck.STATE_APPLIED]
    assert applied.audio_offset.ToNanoseconds() / 1e9 == pytest.approx(len(first) / 32000)
