"""`Synthesize`: one whole text over the upstream's event stream, audio as it is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from wavegate_server import errors
from wavegate_server.audio import AudioFormat
from wavegate_server.session.context import SessionContext
from wavegate_server.session.encode import make_encoder
from wavegate_server.session.events import SessionLimits, SessionStarted, Upstream, WarningRaised
from wavegate_server.session.http import UpstreamHttp
from wavegate_server.session.retry import RetryBudget
from wavegate_server.session.synthesis_events import AudioProduced, UtteranceCompleted, WordsTimed, chunks
from wavegate_server.session.utterance import Metrics, TimedWord, Utterance
from wavegate_server.waves import sse
from wavegate_server.waves.settings import SYNTHESIS, Settings, unknown_languages
from wavegate_server.waves.tts import Completion


async def synthesize(
    context: SessionContext,
    http: UpstreamHttp,
    settings: Settings,
    audio_format: AudioFormat,
    text: str,
    utterance_id: str,
) -> AsyncGenerator[Any, None]:
    """Events of one utterance: SessionStarted, AudioProduced, WordsTimed, UtteranceCompleted.

    Raises errors of `wavegate_server.errors`; what fails before the first audio is tried again. Reading slowly
    slows the upstream. Closing the generator cuts the upstream off.
    """
    loop = asyncio.get_running_loop()
    utterance = Utterance(
        utterance_id,
        settings,
        1,
        1,
        Metrics(first_text_at=loop.time(), input_character_count=len(text)),
        make_encoder(audio_format),
        audio_format.sample_rate_hz,
        text=text,
    )
    retry = RetryBudget()
    started = False
    while True:
        try:
            async for event in _attempt(context, http, utterance, audio_format, text):
                if isinstance(event, SessionStarted):
                    if not started:
                        yield event
                        for name, tag in unknown_languages(SYNTHESIS, settings):
                            yield WarningRaised(
                                "UNKNOWN_LANGUAGE",
                                f"{name} {tag!r} is not in the gateway's table; it is passed on as it is",
                                {"field": name},
                                utterance_id,
                            )
                    started = True
                    continue
                if isinstance(event, AudioProduced) and utterance.metrics.first_delivered_at is None:
                    yield event
                    utterance.metrics.first_delivered_at = loop.time()
                    continue
                yield event
            return
        except errors.WavegateError as exc:
            delay = retry.next_delay_s(exc) if not utterance.metrics.audio_samples else None
            if delay is None or delay > context.bounds.max_queue_wait_s:
                raise
            utterance.metrics.reconnect_count += 1
            await asyncio.sleep(delay)


async def _attempt(
    context: SessionContext, http: UpstreamHttp, utterance: Utterance, audio_format: AudioFormat, text: str
) -> AsyncGenerator[Any, None]:
    loop = asyncio.get_running_loop()
    settings, metrics, rate = utterance.settings, utterance.metrics, audio_format.sample_rate_hz
    size = settings.get("max_chunk_bytes")
    body = sse.body(
        settings, text, rate, context.client_session_id or context.session_id, utterance.utterance_id
    )
    metrics.first_sent_at = loop.time()
    async with http.stream("POST", sse.SSE_PATH, content=body) as response:
        yield started_event(context, settings, audio_format)
        reader = sse.SseReader()
        lines = response.lines()
        done = False
        try:
            async for line in lines:
                for event in reader.line(line):
                    match event:
                        case sse.Audio():
                            now = loop.time()
                            if metrics.first_received_at is None:
                                metrics.first_received_at = now
                            elif metrics.last_received_at is not None:
                                metrics.max_gap_s = max(metrics.max_gap_s, now - metrics.last_received_at)
                            metrics.last_received_at = now
                            pcm = utterance.whole_samples(event.pcm)
                            audio = utterance.encoder.encode(pcm) if pcm else b""
                            for chunk in chunks(utterance, audio, len(pcm) // 2, audio_format, size):
                                yield chunk
                        case sse.Word() if settings.get("word_timings"):
                            word = TimedWord(event.text, len(utterance.words), event.start_s, event.end_s)
                            utterance.words.append(word)
                            yield WordsTimed(utterance.utterance_id, (word,))
                        case sse.Done():
                            done = True
                if done:
                    break
        finally:
            await lines.aclose()
        if not done:
            raise errors.UpstreamUnavailable("the upstream ended the stream before the speech was complete")
        for chunk in chunks(utterance, utterance.encoder.finish(), 0, audio_format, size):
            yield chunk
        utterance.upstreams.append(
            Upstream(reader.session_id, reader.request_id, http.endpoint(sse.SSE_PATH), 0)
        )
    metrics.ended_at = loop.time()
    yield UtteranceCompleted(utterance, Completion.UPSTREAM)


def started_event(context: SessionContext, settings: Settings, audio_format: AudioFormat) -> SessionStarted:
    """The first event of a call that has no session of its own in the registry."""
    bounds = context.bounds
    return SessionStarted(
        session_id=context.session_id,
        audio_format=audio_format,
        settings=settings,
        settings_revision=1,
        limits=SessionLimits(
            client_idle_timeout_s=bounds.idle_timeout_s,
            resume_window_s=0.0,
            max_text_message_chars=bounds.max_utterance_chars,
            max_buffered_chars=bounds.max_buffered_chars,
            max_audio_message_bytes=0,
            max_concurrent_sessions=context.max_concurrent_sessions,
            active_sessions=context.active_sessions,
        ),
        trace_id=context.span.trace_id,
    )
