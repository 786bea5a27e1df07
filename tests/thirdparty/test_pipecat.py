"""pipecat's services, in pipelines of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from waves_local import Upstream

from tests.thirdparty.checks import PATIENCE_S, SENTENCE, assert_heard, assert_spoken, recording

pytest.importorskip("pipecat.services.smallest", reason="pipecat is not installed")

from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
    TTSTextFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.smallest.stt import SmallestSTTService
from pipecat.services.smallest.tts import SmallestTTSService
from pipecat.workers.runner import WorkerRunner

RATE_HZ = 16000


class Sink(FrameProcessor):
    """Keeps what comes out and tells when it is enough."""

    def __init__(self, is_enough: Callable[[list[Frame]], bool]) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.enough = asyncio.Event()
        self._is_enough = is_enough

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.frames.append(frame)
        if self._is_enough(self.frames):
            self.enough.set()
        await self.push_frame(frame, direction)

    def of(self, kind: type) -> list[Any]:
        return [f for f in self.frames if isinstance(f, kind)]


async def run(
    service: FrameProcessor, frames: Sequence[Frame], is_enough: Callable[[list[Frame]], bool]
) -> Sink:
    """Send frames through a service until enough has come out of it."""
    sink = Sink(is_enough)
    worker = PipelineWorker(
        Pipeline([service, sink]),
        params=PipelineParams(audio_in_sample_rate=RATE_HZ, audio_out_sample_rate=RATE_HZ),
        cancel_on_idle_timeout=False,
    )
    runner = WorkerRunner(handle_sigint=False)
    running = asyncio.create_task(runner.run(worker))

    try:
        async with asyncio.timeout(PATIENCE_S):
            for frame in frames:
                await worker.queue_frame(frame)
            await sink.enough.wait()
            await worker.queue_frame(EndFrame())
            await running
    finally:
        if not running.done():
            await worker.cancel()
            await asyncio.wait([running])
    return sink


def ws(upstream: Upstream) -> str:
    return upstream.url.replace("http", "ws", 1)


async def test_speaking(upstream: Upstream) -> None:
    service = SmallestTTSService(
        api_key="key", base_url=ws(upstream), settings=SmallestTTSService.Settings(voice="meher", speed=1.0)
    )
    text = "Good morning. " + SENTENCE
    response = [
        LLMFullResponseStartFrame(),
        *(LLMTextFrame(word + " ") for word in text.split(" ")),
        LLMFullResponseEndFrame(),
    ]

    def is_enough(frames: list[Frame]) -> bool:
        return any(isinstance(f, TTSStoppedFrame) for f in frames)

    sink = await run(service, response, is_enough)
    pcm = b"".join(f.audio for f in sink.of(TTSAudioRawFrame))
    # Sentences are fragments of their own, and pipecat puts no blank between them.
    assert_spoken(upstream, pcm, text.replace(". P", ".P"), RATE_HZ)
    words = " ".join(f.text for f in sink.of(TTSTextFrame)).split()
    assert [w.rstrip(".") for w in words] == [w.rstrip(".") for w in text.split()]
    [record] = upstream.journal.of("tts")
    assert {m["context_id"] for m in record.texts} != {""}
    assert record.headers["x-source"] == "pipecat"


async def test_listening(upstream: Upstream) -> None:
    service = SmallestSTTService(api_key="key", base_url=ws(upstream))
    audio = await recording(upstream, SENTENCE, RATE_HZ)
    step = RATE_HZ // 25 * 2
    spoken = [
        InputAudioRawFrame(audio=audio[i : i + step], sample_rate=RATE_HZ, num_channels=1)
        for i in range(0, len(audio), step)
    ]

    def is_enough(frames: list[Frame]) -> bool:
        finals = [f.text for f in frames if isinstance(f, TranscriptionFrame)]
        return len(" ".join(finals).split()) >= len(SENTENCE.split()) - 2

    sink = await run(service, [*spoken, VADUserStoppedSpeakingFrame()], is_enough)
    assert sink.of(InterimTranscriptionFrame)
    assert_heard(upstream, " ".join(f.text for f in sink.of(TranscriptionFrame)), SENTENCE)
