"""`Synthesize`: one whole text over the upstream's event stream, audio as it is made."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any

from wavegate_server import errors
from wavegate_server.audio import AudioFormat
from wavegate_server.session.account import Claim, acquire
from wavegate_server.session.clock import session_clock
from wavegate_server.session.context import SessionContext, UpstreamTarget, endpoint_of
from wavegate_server.session.encode import make_encoder
from wavegate_server.session.events import SessionLimits, SessionStarted, Upstream, WarningRaised
from wavegate_server.session.http import HttpStream, UpstreamHttp
from wavegate_server.session.retry import QueueWait, RetryBudget
from wavegate_server.session.speakable import speakable
from wavegate_server.session.synthesis_events import (
    AudioProduced,
    UtteranceCompleted,
    WordsTimed,
    chunks,
    unspeakable,
)
from wavegate_server.session.tracing import SynthesisTrace
from wavegate_server.session.utterance import Metrics, Utterance
from wavegate_server.waves import ending, sse
from wavegate_server.waves.ending import SpokenWords
from wavegate_server.waves.settings import SYNTHESIS, Settings, unknown_languages
from wavegate_server.waves.tts import Completion


async def synthesize(
    context: SessionContext,
    http: UpstreamHttp,
    settings: Settings,
    audio_format: AudioFormat,
    text: str,
    utterance_id: str,
    trace: SynthesisTrace,
) -> AsyncGenerator[Any, None]:
    """Events of one utterance: SessionStarted, AudioProduced, WordsTimed, UtteranceCompleted.

    Raises errors of `wavegate_server.errors`; what fails before the first audio is tried again. Reading slowly
    slows the upstream. Closing the generator cuts the upstream off.
    """
    now = session_clock()
    text, removed = speakable(text)
    utterance = Utterance(
        utterance_id,
        settings,
        1,
        1,
        Metrics(first_text_at=now(), input_character_count=len(text)),
        make_encoder(audio_format),
        audio_format.sample_rate_hz,
        text=text,
    )
    metrics = utterance.metrics
    began_ns = time.time_ns()
    utterance.trace = trace.utterance(utterance, began_ns)
    utterance.trace.arrived(1, text, began_ns, len(text))
    retry, queue_wait = RetryBudget(), QueueWait(context.bounds.max_queue_wait_s)
    wake = asyncio.Event()
    language = settings.get("language_code", "")
    target = context.upstreams.choose("tts", language)
    slot = Claim(
        target.account.requests,
        "active request",
        context.caller,
        wake.set,
        context.bounds.max_queue_wait_s,
    )
    started = False
    try:
        while True:
            waited_s = await acquire(slot, wake, queue_wait.since)
            if waited_s:
                queue_wait.began(now() - waited_s)
            metrics.admission_wait_s += waited_s
            try:
                async with contextlib.aclosing(
                    _attempt(context, http, target, utterance, audio_format, text)
                ) as attempt:
                    async for event in attempt:
                        if isinstance(event, SessionStarted):
                            if started:
                                continue
                            started = True
                            yield event
                            for warning in _unknown_languages(settings, utterance_id):
                                yield warning
                            if removed:
                                yield unspeakable(removed, utterance_id)
                            continue
                        yield event
                return
            except errors.WavegateError as exc:
                slot.give_back()
                if metrics.first_received_at is not None:
                    raise
                if isinstance(exc, errors.UpstreamCapacity):
                    delay_s = queue_wait.next_delay_s(exc, now())
                    metrics.admission_wait_s += delay_s or 0.0
                else:
                    delay_s = retry.next_delay_s(exc)
                    metrics.reconnect_count += 1
                if delay_s is None:
                    raise
                utterance.lose_request()
                await asyncio.sleep(delay_s)
                target = context.upstreams.choose("tts", language)
                slot.move(target.account.requests)
    finally:
        slot.give_back()


def delivered(event: Any) -> None:
    """Note that an event of `synthesize` was handed to the caller."""
    if isinstance(event, AudioProduced) and event.utterance.metrics.first_delivered_at is None:
        event.utterance.metrics.first_delivered_at = session_clock()()


def _unknown_languages(settings: Settings, utterance_id: str) -> list[WarningRaised]:
    return [
        WarningRaised(
            "UNKNOWN_LANGUAGE",
            f"{name} {tag!r} is not in the gateway's table; it is passed on as it is",
            {"field": name},
            utterance_id,
        )
        for name, tag in unknown_languages(SYNTHESIS, settings)
    ]


async def _attempt(
    context: SessionContext,
    http: UpstreamHttp,
    target: UpstreamTarget,
    utterance: Utterance,
    audio_format: AudioFormat,
    text: str,
) -> AsyncGenerator[Any, None]:
    now = session_clock()
    settings, metrics, rate = utterance.settings, utterance.metrics, audio_format.sample_rate_hz
    size = settings.get("max_chunk_bytes")
    body = sse.body(
        settings, text, rate, context.client_session_id or context.session_id, utterance.utterance_id
    )
    metrics.first_sent_at = now()
    handed_ns = time.time_ns()
    path = sse.path_of(settings, old_paths=target.old_tts_path)
    async with http.stream(target, "POST", path, content=body) as response:
        if utterance.trace is not None:
            utterance.trace.sent(len(text), handed_ns, time.time_ns())
        yield started_event(context, settings, audio_format)
        reader, words = sse.SseReader(), SpokenWords()
        said_done = done = False
        received_bytes = 0
        async with contextlib.aclosing(_sse_events(response, reader)) as upstream_events:
            async for event in upstream_events:
                match event:
                    case sse.Audio():
                        done = False  # it was not: this belongs to the text
                        metrics.received(now())
                        received_bytes += len(event.pcm)
                        pcm = utterance.whole_samples(event.pcm)
                        audio = utterance.encoder.encode(pcm) if pcm else b""
                        for chunk in chunks(utterance, audio, len(pcm) // 2, audio_format, size):
                            yield chunk
                    case sse.Word() if settings.get("word_timings"):
                        words.add(text, event.text, event.end_s)
                        word = utterance.add_word(event.text, event.start_s, event.end_s)
                        if word is not None:
                            yield WordsTimed(utterance.utterance_id, (word,))
                    case sse.Done():
                        said_done = done = True
                        metrics.ended_at = now()
        audio_s = received_bytes / 2 / rate
        if not said_done or words.are_missing(text, audio_s):
            raise errors.UpstreamUnavailable("the upstream ended the stream before the speech was complete")
        letters = ending.letters_of(text)
        if letters and not audio_s:
            raise errors.UpstreamProtocol("the upstream said that it was done, and had sent no audio")
        least_s = target.habits.least_s(
            ending.voice_of(settings),
            text,
            letters,
            ending.quickened_by(settings),
            prior=True,
            strict=False,
        )
        for chunk in chunks(utterance, utterance.encoder.finish(), 0, audio_format, size):
            yield chunk
        utterance.upstreams.append(
            Upstream(reader.session_id, reader.request_id, endpoint_of(target.http_url(path)), 0)
        )
    yield UtteranceCompleted(utterance, Completion.UPSTREAM, is_unconfirmed=not done or audio_s < least_s)


async def _sse_events(response: HttpStream, reader: sse.SseReader) -> AsyncGenerator[sse.SseEvent, None]:
    """The events of a response, to its end: audio behind a `done` shows that it was none.

    An upstream that leaves the response open behind a `done`, breaks it off or sends what is no event has done.
    """
    done = False
    async with contextlib.aclosing(response.lines()) as lines:
        while True:
            try:
                async with asyncio.timeout(ending.LAST_WORD_S if done else None):
                    line = await anext(lines, None)
                upstream_events = reader.finish() if line is None else reader.line(line)
            except (TimeoutError, errors.WavegateError):
                if done:
                    return
                raise
            for event in upstream_events:
                done = isinstance(event, sse.Done) or (done and not isinstance(event, sse.Audio))
                yield event
            if line is None:
                return


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
