"""A gateway for tests of the client: it keeps the contract, speaks a made-up language, and fails on demand.

Its audio is the text itself, two bytes a character (UTF-16), so that a test can read what was spoken. Its
transcripts say which bytes were heard.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2
from grpc import aio
from wavegate.speech.v1 import (
    session_service_pb2,
    session_service_pb2_grpc,
    synthesis_service_pb2,
    synthesis_service_pb2_grpc,
    transcription_service_pb2,
    transcription_service_pb2_grpc,
    types_pb2,
)


def audio_of(text: str) -> bytes:
    """What the fake gateway speaks."""
    return text.encode("utf-16-le")


def text_of(audio: bytes) -> str:
    """What was spoken."""
    return audio.decode("utf-16-le")


def status(
    code: grpc.StatusCode,
    reason: str,
    message: str,
    *,
    retry_s: int | None = None,
    fields: dict[str, str] | None = None,
    quota: tuple[str, str] | None = None,
) -> types_pb2.Status:
    """A status as the gateway makes one."""
    made = types_pb2.Status(code=code.value[0], message=message)

    def add(detail: Any) -> None:
        packed = AnyMessage()
        packed.Pack(detail)
        made.details.append(packed)

    add(error_details_pb2.ErrorInfo(reason=reason, domain="wavegate.speech", metadata={"from": "fake"}))
    if retry_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds = retry_s
        add(retry)
    if fields:
        bad = error_details_pb2.BadRequest()
        for name, description in fields.items():
            bad.field_violations.add(field=name, description=description)
        add(bad)
    if quota:
        failure = error_details_pb2.QuotaFailure()
        failure.violations.add(subject=quota[0], description=quota[1])
        add(failure)
    return made


async def abort(context: Any, with_status: types_pb2.Status) -> None:
    """Ends a call as the gateway does: code, message and details."""
    code = next(c for c in grpc.StatusCode if c.value[0] == with_status.code)
    await context.abort(
        code,
        with_status.message,
        trailing_metadata=(("grpc-status-details-bin", with_status.SerializeToString()),),
    )


def bad_speed(path: str) -> types_pb2.Status:
    """What the gateway says of a speed that nobody can speak at."""
    return status(
        grpc.StatusCode.INVALID_ARGUMENT,
        "FIELD_INVALID",
        "1 field is invalid",
        fields={path: "must be between 0.5 and 2.0"},
    )


@dataclass
class FakeGateway:
    """Switches to set, and records to read."""

    target: str = ""
    # switches
    chunk_chars: int = 8
    refuse: types_pb2.Status | None = None
    """Said by the next session instead of `session_started`."""
    refuse_all: bool = False
    """By every session, not only the next."""
    silent_start: bool = False
    """Sessions are accepted and then nothing is said."""
    rude: bool = False
    """After `session_ended` the call is aborted at once, while the client may still be writing."""
    lose: bool = False
    """Sessions are cut off after `session_started` and the first text or audio, without a last word."""
    lose_with: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    """What a proxy in between makes of it."""
    late_audio_chunks: int = 0
    """Audio that is on its way when a cancel arrives: sent before `utterance_cancelled`."""
    slow_cancel: bool = False
    """Cancels are not answered while `hold` is clear."""
    resume_window_s: int = 0
    acknowledge: bool = True
    max_text_message_chars: int = 0
    max_audio_message_bytes: int = 0
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    """While clear, audio stops after the first chunk of an utterance, and the last transcript does not come."""
    loop: asyncio.AbstractEventLoop | None = None
    """The one that it serves in."""
    unknown_events: bool = False
    """Answers of a kind that this contract does not have yet are mixed in."""
    spans: list[session_service_pb2.TraceSpan] = field(default_factory=list)
    """What `GetTrace` finds."""
    # records
    requests: list[Any] = field(default_factory=list)
    recognized: list[Any] = field(default_factory=list)
    """What `Recognize` was asked."""
    metadata: list[dict[str, str]] = field(default_factory=list)
    sent_chunks: int = 0
    cancelled_calls: int = 0
    sessions: dict[str, FakeSession] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def release(self) -> None:
        """Sets `hold`, from any thread."""
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.hold.set)

    def inputs(self, kind: str) -> list[Any]:
        """The inputs of one kind that sessions have received."""
        return [getattr(r, kind) for r in self.requests if r.WhichOneof("input") == kind]


class FakeSession:
    """What both kinds of session do."""

    def __init__(self, gateway: FakeGateway, context: Any, response: Any, settings_arm: str) -> None:
        self.gateway = gateway
        self.context = context
        self.response = response
        self.arm = settings_arm
        self.session_id = f"s-{next(gateway.numbers)}"
        self.settings: Any = None
        self.audio_format = types_pb2.AudioFormat()
        self.labels: dict[str, str] = {}
        self.revision = 1
        self.sequence = 0
        self.input_sequence = 0
        self.ended = False
        self.close = asyncio.Event()
        self.writing = asyncio.Lock()

    async def send(self, **event: Any) -> None:
        async with self.writing:  # grpc.aio takes one write at a time
            self.sequence += 1
            acknowledged = self.input_sequence if self.gateway.acknowledge else 0
            await self.context.write(
                self.response(sequence=self.sequence, acknowledged_input_sequence=acknowledged, **event)
            )

    async def read(self) -> Any:
        request = await self.context.read()
        if request is aio.EOF:
            return None
        self.gateway.requests.append(request)
        self.input_sequence += 1
        is_last = request.WhichOneof("input") == "end_session" and request.end_session.discard
        assert request.input_sequence == self.input_sequence or (is_last and not request.input_sequence), (
            "explicit numbers without a gap, but for the last word of a client that is leaving"
        )
        return request

    async def start(self, start: Any, default_rate_hz: int) -> bool:
        """Answers `start`; false if the session is refused."""
        if self.gateway.refuse is not None:
            refusal = self.gateway.refuse
            if not self.gateway.refuse_all:
                self.gateway.refuse = None
            await self.end(types_pb2.SessionEnded.REASON_FAILURE, refusal)
            return False
        has_speed = self.arm == "synthesis" and start.settings.HasField("speed")
        if has_speed and not 0.5 <= start.settings.speed <= 2:
            await self.end(types_pb2.SessionEnded.REASON_FAILURE, bad_speed("start.settings.speed"))
            return False
        self.settings = start.settings
        self.labels = dict(start.labels)
        self.audio_format.CopyFrom(start.audio_format)
        self.audio_format.sample_rate_hertz = start.audio_format.sample_rate_hertz or default_rate_hz
        self.audio_format.encoding = start.audio_format.encoding or types_pb2.AUDIO_ENCODING_LINEAR16
        if self.gateway.silent_start:
            await asyncio.Event().wait()
        limits = types_pb2.SessionLimits(
            max_text_message_chars=self.gateway.max_text_message_chars,
            max_audio_message_bytes=self.gateway.max_audio_message_bytes,
        )
        limits.resume_window.seconds = self.gateway.resume_window_s
        self.gateway.sessions[self.session_id] = self
        if self.gateway.unknown_events:
            await self.send()
        await self.send(
            session_started=types_pb2.SessionStarted(
                session_id=self.session_id,
                audio_format=self.audio_format,
                settings=types_pb2.EffectiveSettings(**{self.arm: self.settings}),
                settings_revision=1,
                limits=limits,
                trace_id="0af7651916cd43dd8448eb211c80319c",
                gateway_version="fake",
            )
        )
        return True

    def ack(self, update: Any, settings: Any, mechanism: Any) -> types_pb2.SettingsAck:
        """Applies a delta, or refuses it."""
        state = types_pb2.SettingsAck
        if self.arm == "synthesis" and settings.HasField("speed") and not 0.5 <= settings.speed <= 2:
            return state(
                update_id=update.update_id, state=state.STATE_REJECTED, error=bad_speed("synthesis.speed")
            )
        if update.HasField("expected_revision") and update.expected_revision != self.revision:
            conflict = status(grpc.StatusCode.ABORTED, "REVISION_MISMATCH", "the session is elsewhere")
            return state(update_id=update.update_id, state=state.STATE_REJECTED, error=conflict)
        if not update.validate_only:
            self.revision += 1
            for path in update.reset_mask.paths:
                self.settings.ClearField(path)
            self.settings.MergeFrom(settings)
        return state(
            update_id=update.update_id,
            state=state.STATE_VALIDATED if update.validate_only else state.STATE_APPLIED,
            mechanism=mechanism,
            fields=[state.FieldOutcome(path=f.name, mechanism=mechanism) for f, _ in settings.ListFields()],
            settings_revision=self.revision,
            settings=types_pb2.EffectiveSettings(**{self.arm: self.settings}),
        )

    async def end(self, reason: Any, failure: types_pb2.Status | None = None) -> None:
        """The last word, and then the end of the call with the same status."""
        self.ended = True
        self.gateway.sessions.pop(self.session_id, None)
        usage = types_pb2.SessionUsage(utterance_count=3, audio_bytes=12)
        await self.send(session_ended=types_pb2.SessionEnded(reason=reason, status=failure, usage=usage))
        if not (self.gateway.rude and failure):
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    while await self.context.read() is not aio.EOF:
                        pass
        if failure is not None:
            await abort(self.context, failure)

    def info(self) -> session_service_pb2.Session:
        """The session from outside."""
        return session_service_pb2.Session(
            session_id=self.session_id,
            state=session_service_pb2.Session.STATE_ACTIVE,
            settings=types_pb2.EffectiveSettings(**{self.arm: self.settings}),
            settings_revision=self.revision,
            audio_format=self.audio_format,
            labels=self.labels,
        )


class FakeSynthesisSession(FakeSession):
    """Speaks utterances in order, chunk by chunk."""

    def __init__(self, gateway: FakeGateway, context: Any) -> None:
        super().__init__(gateway, context, synthesis_service_pb2.SynthesizeStreamResponse, "synthesis")
        self.texts: dict[str, str] = {}
        self.queue: asyncio.Queue[str | None] = asyncio.Queue()
        self.over: set[str] = set()
        self.speaking: str | None = None
        self.spoken = ""
        self.open: str | None = None
        self.broken = False

    async def run(self) -> None:
        request = await self.read()
        if request.WhichOneof("input") != "start":
            wrong = status(grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_ORDER", "the first message is start")
            await self.end(types_pb2.SessionEnded.REASON_FAILURE, wrong)
            return
        if not await self.start(request.start, 24000):
            return
        speaker = asyncio.create_task(self.speak())
        try:
            await self.read_inputs(speaker)
        finally:
            speaker.cancel()

    async def read_inputs(self, speaker: asyncio.Task[None]) -> None:
        while not self.broken:
            request = await self.read()
            kind = request.WhichOneof("input") if request else "end_session"
            if self.gateway.lose and kind == "text":
                await self.context.abort(self.gateway.lose_with, "Socket closed")
            match kind:
                case "text":
                    await self.text(request.text)
                case "end_utterance":
                    self.close_utterance(request.end_utterance.utterance_id)
                case "cancel":
                    await self.cancel(request.cancel)
                case "update_settings":
                    update = request.update_settings
                    if self.speaking and not update.validate_only:
                        queued = types_pb2.SettingsAck(
                            update_id=update.update_id, state=types_pb2.SettingsAck.STATE_QUEUED
                        )
                        await self.send(settings_ack=queued)
                    mechanism = types_pb2.SettingsAck.MECHANISM_NEXT_UTTERANCE
                    await self.send(settings_ack=self.ack(update, update.settings, mechanism))
                case "end_session":
                    discard = request is not None and request.end_session.discard
                    if discard:
                        speaker.cancel()
                        for utterance_id in [i for i in self.texts if i not in self.over]:
                            await self.cancelled(utterance_id)
                    else:
                        if self.open:
                            self.close_utterance(self.open)
                        self.queue.put_nowait(None)
                        await speaker
                    await self.end(types_pb2.SessionEnded.REASON_CLIENT_END)
                    return
        await speaker  # what was said before
        failure = status(
            grpc.StatusCode.FAILED_PRECONDITION, "UPSTREAM_CREDENTIAL", "the gateway's key is bad"
        )
        await self.end(types_pb2.SessionEnded.REASON_FAILURE, failure)

    async def text(self, text: Any) -> None:
        if text.utterance_id in self.over:
            stale = types_pb2.Warning(
                reason="STALE_TEXT", message="that utterance is over", utterance_id=text.utterance_id
            )
            await self.send(warning=stale)
            return
        if self.open and self.open != text.utterance_id:
            self.close_utterance(self.open)
        self.open = text.utterance_id
        self.texts[self.open] = self.texts.get(self.open, "") + text.text
        if text.end_utterance:
            self.close_utterance(self.open)

    def close_utterance(self, utterance_id: str) -> None:
        if utterance_id == self.open:
            self.open = None
        self.broken = self.broken or "[break]" in self.texts.get(utterance_id, "")
        self.queue.put_nowait(utterance_id)

    async def cancel(self, cancel: Any) -> None:
        if self.gateway.slow_cancel:
            await self.gateway.hold.wait()
        wanted = [cancel.utterance_id] if cancel.utterance_id else list(self.texts)
        for utterance_id in wanted:
            if utterance_id in self.texts and utterance_id not in self.over:
                if utterance_id == self.open:
                    self.open = None
                self.over.add(utterance_id)
                for index in range(self.gateway.late_audio_chunks):
                    late = synthesis_service_pb2.AudioChunk(
                        audio=audio_of("LATE"), utterance_id=utterance_id, chunk_index=100 + index
                    )
                    await self.send(audio=late)
                await self.cancelled(utterance_id)

    async def cancelled(self, utterance_id: str) -> None:
        spoken = self.spoken if utterance_id == self.speaking else ""
        await self.send(
            utterance_cancelled=synthesis_service_pb2.UtteranceCancelled(
                utterance_id=utterance_id,
                method=synthesis_service_pb2.UtteranceCancelled.METHOD_UPSTREAM_CANCEL,
                spoken_text=spoken,
                remaining_text=self.texts[utterance_id][len(spoken) :],
                estimate_source=synthesis_service_pb2.ESTIMATE_SOURCE_PROPORTIONAL,
            )
        )

    async def speak(self) -> None:
        while (utterance_id := await self.queue.get()) is not None:
            if utterance_id in self.over:
                continue
            text = self.texts[utterance_id]
            if "[break]" in text:
                return
            self.speaking, self.spoken = utterance_id, ""
            failure = None
            if "[fail]" in text:
                failure = status(
                    grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNAVAILABLE", "the upstream is down", retry_s=3
                )
                await self.send(
                    utterance_failed=synthesis_service_pb2.UtteranceFailed(
                        utterance_id=utterance_id, error=failure, retryable=True
                    )
                )
            elif text.strip():
                await self.send(
                    utterance_started=synthesis_service_pb2.UtteranceStarted(
                        utterance_id=utterance_id, settings_revision=self.revision
                    )
                )
                await self.chunks(utterance_id, text)
            if failure is None and utterance_id not in self.over:
                await self.send(utterance_completed=self.completed(utterance_id, text))
            self.over.add(utterance_id)
            self.speaking = None

    async def chunks(self, utterance_id: str, text: str) -> None:
        step = self.gateway.chunk_chars
        for index, at in enumerate(range(0, len(text), step)):
            if index:
                await self.gateway.hold.wait()
            if utterance_id in self.over:
                return
            piece = text[at : at + step]
            chunk = synthesis_service_pb2.AudioChunk(
                audio=audio_of(piece), utterance_id=utterance_id, chunk_index=index
            )
            chunk.start_offset.nanos = at * 1000
            self.spoken += piece
            self.gateway.sent_chunks += 1
            await self.send(audio=chunk)

    def completed(self, utterance_id: str, text: str) -> synthesis_service_pb2.UtteranceCompleted:
        completed = synthesis_service_pb2.UtteranceCompleted(
            utterance_id=utterance_id,
            completion_source=synthesis_service_pb2.UtteranceCompleted.COMPLETION_SOURCE_UPSTREAM,
            settings_revision=self.revision,
        )
        metrics = completed.metrics
        metrics.input_character_count = len(text)
        metrics.audio_bytes = len(audio_of(text))
        metrics.audio_duration.nanos = len(text) * 1000
        if text.strip():
            metrics.time_to_first_audio.nanos = 5_000_000
            metrics.upstream_time_to_first_audio.nanos = 4_000_000
        return completed


class FakeTranscriptionSession(FakeSession):
    """Tells which bytes it has heard."""

    def __init__(self, gateway: FakeGateway, context: Any) -> None:
        super().__init__(
            gateway, context, transcription_service_pb2.TranscribeStreamResponse, "transcription"
        )
        self.heard = 0
        self.final_until = 0
        self.segment = 1
        self.full = ""

    async def run(self) -> None:
        request = await self.read()
        if request.WhichOneof("input") != "start":
            wrong = status(grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_ORDER", "the first message is start")
            await self.end(types_pb2.SessionEnded.REASON_FAILURE, wrong)
            return
        if not await self.start(request.start, 16000):
            return
        trigger = transcription_service_pb2.Transcript
        while True:
            request = await self.read()
            kind = request.WhichOneof("input") if request else "end_session"
            if self.gateway.lose and kind == "audio":
                await self.context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            match kind:
                case "audio":
                    if not self.heard:
                        await self.send(speech_started=transcription_service_pb2.SpeechStarted())
                    self.heard += len(request.audio.content)
                    await self.send(transcript=self.transcript(is_final=False))
                case "finalize":
                    final = self.transcript(is_final=True, finalize_id=request.finalize.finalize_id)
                    final.final_trigger = trigger.FINAL_TRIGGER_CLIENT_FINALIZE
                    final.metrics.finalize_latency.nanos = 7_000_000
                    await self.send(transcript=final)
                case "update_settings":
                    update = request.update_settings
                    mechanism = types_pb2.SettingsAck.MECHANISM_RECONNECT
                    await self.send(settings_ack=self.ack(update, update.settings, mechanism))
                case "end_session":
                    await self.gateway.hold.wait()
                    if self.heard:
                        last = self.transcript(is_final=True)
                        last.final_trigger, last.is_last = trigger.FINAL_TRIGGER_END, True
                        await self.send(transcript=last)
                    await self.end(types_pb2.SessionEnded.REASON_CLIENT_END)
                    return

    def transcript(self, *, is_final: bool, finalize_id: str = "") -> transcription_service_pb2.Transcript:
        transcript = transcription_service_pb2.Transcript(
            segment_id=f"g{self.segment}",
            text=f"heard {self.final_until} to {self.heard}",
            is_final=is_final,
            finalize_id=finalize_id,
        )
        if is_final:
            self.full = f"{self.full} {transcript.text}".strip()
            transcript.full_text = self.full
            self.final_until = self.heard
            self.segment += 1
        return transcript


class _Synthesis(synthesis_service_pb2_grpc.SynthesisServiceServicer):
    def __init__(self, gateway: FakeGateway) -> None:
        self.gateway = gateway

    async def SynthesizeStream(self, _: Any, context: Any) -> None:
        await _run(self.gateway, FakeSynthesisSession(self.gateway, context), context)

    async def Synthesize(self, request: Any, context: Any) -> AsyncIterator[Any]:
        response = synthesis_service_pb2.SynthesizeResponse
        if self.gateway.refuse is not None:
            await abort(context, self.gateway.refuse)
        session = FakeSynthesisSession(self.gateway, context)
        started = types_pb2.SessionStarted(
            session_id="once", audio_format=types_pb2.AudioFormat(encoding=1, sample_rate_hertz=24000)
        )
        yield response(session_started=started)
        yield response(warning=types_pb2.Warning(reason="VOICE_UNKNOWN", message="never heard of it"))
        step = self.gateway.chunk_chars
        for at in range(0, len(request.text), step):
            audio = audio_of(request.text[at : at + step])
            yield response(audio=synthesis_service_pb2.AudioChunk(audio=audio, utterance_id="only"))
        if not self.gateway.lose:
            yield response(utterance_completed=session.completed("only", request.text))

    async def ListVoices(self, request: Any, context: Any) -> Any:
        voices = [
            synthesis_service_pb2.Voice(
                voice_id=f"voice-{n}",
                display_name=f"Voice {n}",
                models=[request.model or "lightning_v3.1"],
                language_codes=["en", "hi"],
                tags=[synthesis_service_pb2.VoiceTag(key="gender", values=["female"])],
            )
            for n in range(5)
        ]
        at = int(request.page_token or 0)
        return synthesis_service_pb2.ListVoicesResponse(
            voices=voices[at : at + 2], next_page_token=str(at + 2) if at + 2 < len(voices) else ""
        )


class _Transcription(transcription_service_pb2_grpc.TranscriptionServiceServicer):
    def __init__(self, gateway: FakeGateway) -> None:
        self.gateway = gateway

    async def TranscribeStream(self, _: Any, context: Any) -> None:
        await _run(self.gateway, FakeTranscriptionSession(self.gateway, context), context)

    async def Recognize(self, request: Any, context: Any) -> Any:
        if self.gateway.refuse is not None:
            await abort(context, self.gateway.refuse)
        self.gateway.recognized.append(request)
        self.gateway.metadata.append(dict(context.invocation_metadata()))
        response = transcription_service_pb2.RecognizeResponse(
            text=request.uri or f"{len(request.content)} bytes", language_codes=["en"]
        )
        response.audio_duration.seconds = 2
        word = response.words.add(text="word", confidence=0.5)
        word.end_offset.nanos = 250_000_000
        return response


class _Sessions(session_service_pb2_grpc.SessionServiceServicer):
    def __init__(self, gateway: FakeGateway) -> None:
        self.gateway = gateway

    async def GetTrace(self, request: Any, context: Any) -> AsyncIterator[Any]:
        key = request.trace_id or request.session_id
        traces = {
            s.trace_id
            for s in self.gateway.spans
            if s.trace_id == key or s.attributes.fields["speech.session.id"].string_value == key
        }
        spans = [s for s in self.gateway.spans if s.trace_id in traces]
        if not spans:
            missing = status(grpc.StatusCode.NOT_FOUND, "TRACE_NOT_FOUND", f"no span of {key} is held")
            await abort(context, missing)
        for span in spans:
            yield session_service_pb2.GetTraceResponse(spans=[span])

    def _missing(self, session_id: str) -> types_pb2.Status:
        return status(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND", f"there is no session {session_id}")

    async def UpdateSettings(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        response = session_service_pb2.UpdateSettingsResponse
        async for request in requests:
            self.gateway.requests.append(request)
            session = self.gateway.sessions.get(request.session_id)
            if session is None:
                ack = types_pb2.SettingsAck(
                    update_id=request.update_id,
                    state=types_pb2.SettingsAck.STATE_REJECTED,
                    error=self._missing(request.session_id),
                )
                yield response(session_id=request.session_id, ack=ack)
                continue
            settings = getattr(request, request.WhichOneof("settings") or session.arm)
            ack = session.ack(request, settings, types_pb2.SettingsAck.MECHANISM_IN_PLACE)
            await session.send(settings_ack=ack)
            yield response(session_id=request.session_id, ack=ack)
            if request.watch:
                connected = types_pb2.ConnectionEvent(
                    state=types_pb2.ConnectionEvent.STATE_CONNECTED,
                    reason=types_pb2.ConnectionEvent.REASON_SETTINGS_UPDATE,
                )
                yield response(session_id=request.session_id, connection=connected)

    async def GetSession(self, request: Any, context: Any) -> Any:
        if request.session_id not in self.gateway.sessions:
            await abort(context, self._missing(request.session_id))
        return session_service_pb2.GetSessionResponse(
            session=self.gateway.sessions[request.session_id].info()
        )

    async def ListSessions(self, request: Any, context: Any) -> Any:
        wanted = [
            s.info()
            for s in self.gateway.sessions.values()
            if all(s.labels.get(k) == v for k, v in request.labels.items())
        ]
        at = int(request.page_token or 0)
        return session_service_pb2.ListSessionsResponse(
            sessions=wanted[at : at + 1], next_page_token=str(at + 1) if at + 1 < len(wanted) else ""
        )

    async def CloseSession(self, request: Any, context: Any) -> Any:
        session = self.gateway.sessions.get(request.session_id)
        if session is None:
            await abort(context, self._missing(request.session_id))
        session.close.set()
        return session_service_pb2.CloseSessionResponse()


async def _run(gateway: FakeGateway, session: Any, context: Any) -> None:
    gateway.metadata.append(dict(context.invocation_metadata()))
    work = asyncio.create_task(session.run())
    closing = asyncio.create_task(session.close.wait())
    try:
        await asyncio.wait([work, closing], return_when=asyncio.FIRST_COMPLETED)
        if closing.done() and not work.done():
            work.cancel()
            await asyncio.wait([work])
            await session.end(types_pb2.SessionEnded.REASON_CLOSED_BY_OPERATOR)
        elif not work.cancelled():
            work.result()
    except asyncio.CancelledError:
        gateway.cancelled_calls += 1
        raise
    finally:
        work.cancel()
        closing.cancel()
        gateway.sessions.pop(session.session_id, None)


@asynccontextmanager
async def serve() -> AsyncIterator[FakeGateway]:
    """A fake gateway on a free port."""
    gateway = FakeGateway()
    gateway.hold.set()
    gateway.loop = asyncio.get_running_loop()
    server = aio.server(
        options=[
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5000),
            ("grpc.http2.max_ping_strikes", 0),
        ]
    )
    synthesis_service_pb2_grpc.add_SynthesisServiceServicer_to_server(_Synthesis(gateway), server)
    transcription_service_pb2_grpc.add_TranscriptionServiceServicer_to_server(_Transcription(gateway), server)
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(_Sessions(gateway), server)
    gateway.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield gateway
    finally:
        await server.stop(0)
