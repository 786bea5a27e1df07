"""`wavegate demo`: the whole of it, once through."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import click

from wavegate.audio import bytes_per_second, wav_header
from wavegate.cli.command import Connection, command, converse
from wavegate.cli.output import Output, ms
from wavegate.cli.own_gateway import own_gateway
from wavegate.cli.playback import Sink, choose_sink
from wavegate.client import Client
from wavegate.errors import GatewayUnavailableError
from wavegate.events import (
    AudioChunk,
    SettingsAck,
    SynthesisEvent,
    Transcript,
    UtteranceCancelled,
    UtteranceCompleted,
    UtteranceFailed,
)
from wavegate.settings import AudioFormat
from wavegate.synthesis import SynthesisSession, Utterance

PARAGRAPH = (
    "Good morning. This is a short tour of a speech gateway. "
    "The words you hear are sent one by one, as a language model would write them. "
    "In the middle of it all the voice changes, and the pace does too. "
    "Then somebody interrupts, and at last the machine listens to itself."
)
STORY = (
    "Once upon a time there was a very long story that went on and on, through valleys and over hills, and nobody "
    "had ever heard the end of it, because somebody always interrupted before the teller came to the second page."
)
_NAME_WIDTH = 12
"""Of the name of a step, in columns."""

_TOKEN_S = 0.03
"""Between two words: a brisk language model."""

_INTERRUPT_AFTER_S = 0.8
"""How much of the story is heard before the interruption."""


@click.command()
@click.option("-o", "--output", metavar="FILE", help="Keep what was spoken as a WAV file.")
@click.option("--play", is_flag=True, help="Play it.")
@click.option("--fast", is_flag=True, help="Listen as fast as it goes, not at the speed of speech.")
@command
async def demo(connection: Connection, output: str | None, play: bool, fast: bool) -> None:
    """Shows all of it, once through.

    It speaks a paragraph word by word, changes voice and pace in the middle, is interrupted, listens to itself, and
    ends with a table of latencies on standard output.

    It uses the gateway at --target, or where none is named the one at 127.0.0.1:50051; if there is none either, it
    starts one of its own.
    """
    if output and output != "-" and Path(output).suffix.lower() != ".wav":
        raise click.UsageError(f"the demo keeps a WAV file: {output} does not end in .wav")
    keep = choose_sink(output, play=play, raw=False, encoding="LINEAR16") if output or play else None
    async with AsyncExitStack() as stack:
        target = connection.target
        if connection.is_default and not await _answers(connection):
            connection.output.note("No gateway is running: starting one for the demo.")
            target = await stack.enter_async_context(own_gateway())
        connection.output.note(f"Gateway at {target}")
        client = await stack.enter_async_context(connection.client(target))
        await _Demo(connection.output, client, keep, paced=not fast).run()


async def _answers(connection: Connection) -> bool:
    async with connection.client() as client:
        try:
            async for _ in client.list_sessions(timeout_s=5):
                break
        except GatewayUnavailableError:
            return False
    return True


@dataclass
class _Times:
    """What was measured, in seconds; `None` where it did not happen."""

    first_audio: float | None = None
    first_audio_gateway: float | None = None
    first_audio_upstream: float | None = None
    total: float | None = None
    audio: float = 0.0
    settings: float | None = None
    silence: float | None = None
    first_words: float | None = None
    finalize: float | None = None
    finalize_gateway: float | None = None

    def rows(self) -> list[tuple[str, str]]:
        return [
            ("speech: first audio", ms(self.first_audio)),
            ("  of that in the gateway and beyond", ms(self.first_audio_gateway)),
            ("  of that upstream", ms(self.first_audio_upstream)),
            ("speech: total", ms(self.total)),
            ("speech: audio made", f"{self.audio:.2f} s"),
            ("settings: applied", ms(self.settings)),
            ("interruption: confirmed", ms(self.silence)),
            ("listening: first words", ms(self.first_words)),
            ("listening: final transcript", ms(self.finalize)),
            ("  of that in the gateway and beyond", ms(self.finalize_gateway)),
        ]


@dataclass
class _Demo:
    output: Output
    client: Client
    sink: Sink | None
    paced: bool
    times: _Times = field(default_factory=_Times)
    spoken: bytearray = field(default_factory=bytearray)
    audio_format: AudioFormat = field(default_factory=AudioFormat)

    async def run(self) -> None:
        """All parts in turn, then the table."""
        voices = await self._voices()
        try:
            async with self.client.synthesize(voice_id=voices[0], language_code="en") as session:
                self.audio_format = session.started.audio_format
                if self.sink is not None:
                    await self.sink.open(self.audio_format)
                self._step("session", f"{session.session_id}, trace {session.started.trace_id or '-'}")
                await self._speak(session, voices[-1])
                await self._be_interrupted(session)
            if self.sink is not None:
                await self.sink.close()
        except BaseException:
            if self.sink is not None:
                self.sink.abort()
            raise
        await self._listen()
        if self.output.as_json:
            self.output.json({"event": "summary", **{f"{k}_s": v for k, v in vars(self.times).items()}})
        else:
            self.output.table(("latency", ""), self.times.rows())

    def _step(self, name: str, text: str) -> None:
        if not self.output.as_json:
            self.output.note(f"{name:>{_NAME_WIDTH}}  {text}", indent=_NAME_WIDTH + 2)

    async def _voices(self) -> list[str]:
        """Two different ones that speak English, if the catalogue has two."""
        found: list[str] = []
        async for voice in self.client.list_voices(language_code="en"):
            found.append(voice.voice_id)
            if len(found) == 2:
                break
        if not found:
            raise click.ClickException("the catalogue has no voice that speaks English")
        return found

    # --- speaking -------------------------------------------------------------------------------

    async def _speak(self, session: SynthesisSession, other_voice: str) -> None:
        self._step("speaking", f"{len(PARAGRAPH.split())} words, one by one")
        began_s = time.monotonic()
        sentences = re.split(r"(?<=\.) ", PARAGRAPH)
        middle = len(sentences) // 2
        first = await session.say(_tokens(" ".join(sentences[:middle])))
        pending = {first.utterance_id}
        second: Utterance | None = None
        change: asyncio.Task[None] | None = None
        with self.output.live():
            while pending or second is None:
                event = await self._event(session)
                if isinstance(event, AudioChunk | UtteranceCompleted) and change is None:
                    self.times.first_audio = time.monotonic() - began_s
                    self._step("first audio", f"after {ms(self.times.first_audio)}")
                    change = asyncio.create_task(self._change_voice(session, other_voice))
                if isinstance(event, SettingsAck) and second is None:
                    # Not before: an utterance that has begun when the change comes is spoken as it was.
                    second = await session.say(_tokens(" ".join(sentences[middle:])))
                    pending.add(second.utterance_id)
                elif isinstance(event, UtteranceFailed):
                    raise event.error
                elif isinstance(event, UtteranceCompleted):
                    pending.discard(event.utterance_id)
                    self.times.audio += event.metrics.audio_duration_s
                    if event.utterance_id == first.utterance_id:
                        self.times.first_audio_gateway = event.metrics.time_to_first_audio_s
                        self.times.first_audio_upstream = event.metrics.upstream_time_to_first_audio_s
        self.times.total = time.monotonic() - began_s
        self._step("spoken", f"{self.times.audio:.2f} s of audio in {self.times.total:.2f} s")
        if change is not None:
            await change

    async def _change_voice(self, session: SynthesisSession, voice: str) -> None:
        ack = await session.update_settings(voice_id=voice, speed=1.25)
        self.times.settings = ack.apply_duration_s
        how = ", ".join(f"{f.path} {f.mechanism.lower().replace('_', ' ')}" for f in ack.fields)
        self._step(
            "settings",
            f"voice {voice}, speed 1.25: {ack.state.lower()}, revision {ack.settings_revision}; {how}",
        )

    async def _event(self, session: SynthesisSession) -> SynthesisEvent:
        event = await anext(session)
        self.output.event(event)
        if isinstance(event, AudioChunk):
            self.spoken += event.audio
            if self.sink is not None:
                await self.sink.write(event.audio)
            self.output.progress(f"{len(self.spoken) / bytes_per_second(self.audio_format):.1f} s of audio")
        elif isinstance(event, SettingsAck) and event.state == "QUEUED":
            self._step("settings", "queued until the utterance ends")
        return event

    async def _be_interrupted(self, session: SynthesisSession) -> None:
        story = await session.say(STORY)
        heard = 0
        audio_bytes_per_s = bytes_per_second(self.audio_format)
        async for audio in story.audio():
            heard += len(audio)
            if heard >= _INTERRUPT_AFTER_S * audio_bytes_per_s:
                break
        began_s = time.monotonic()
        if self.sink is not None:
            self.sink.drop()
        await story.cancel(playback_offset_s=_INTERRUPT_AFTER_S)
        outcome = await story.wait()
        self.times.silence = time.monotonic() - began_s
        if isinstance(outcome, UtteranceCancelled):
            said = outcome.spoken_text or "not known"
            self._step("interrupted", f"by {outcome.method.lower().replace('_', ' ')}; heard so far: {said}")
        else:
            self._step("interrupted", "too late: it was complete")

    # --- listening ------------------------------------------------------------------------------

    async def _listen(self) -> None:
        from wavegate.recordings import decode  # noqa: PLC0415 - codecs are slow to load

        rate_hz = 16000
        recording = wav_header(self.audio_format, len(self.spoken)) + self.spoken
        samples = decode(recording, rate_hz).tobytes()
        self._step("listening", "to what was spoken" + (", at the speed of speech" if self.paced else ""))
        async with self.client.transcribe(
            audio_format=AudioFormat("LINEAR16", rate_hz), language_code="en"
        ) as session:
            began_s = time.monotonic()
            finals: list[str] = []

            async def send() -> None:
                step = rate_hz * 2 // 10
                pieces = [samples[at : at + step] for at in range(0, len(samples), step)]
                await session.stream_audio(pieces, paced=self.paced)
                ended_s = time.monotonic()
                final = await session.finalize()
                self.times.finalize = time.monotonic() - ended_s
                self.times.finalize_gateway = final.metrics.finalize_latency_s
                await session.end()

            async def read() -> None:
                async for event in session:
                    self.output.event(event)
                    if isinstance(event, Transcript) and event.text:
                        if self.times.first_words is None:
                            self.times.first_words = time.monotonic() - began_s
                        self.output.progress(event.text)
                        if event.is_final:
                            finals.append(event.text)

            with self.output.live():
                await converse(send(), read())
        self._step("understood", " ".join(finals) or "nothing")


async def _tokens(text: str) -> AsyncIterator[str]:
    for token in re.findall(r"\s*\S+", text):
        await asyncio.sleep(_TOKEN_S)
        yield token
