"""The driver of the Python client: does with `wavegate`'s public API what the judge says.

    python clients/conformance/drivers/python.py

See clients/conformance/README.md for what it speaks.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import platform
import sys
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import wavegate
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from opentelemetry import context, propagate
from wavegate import AudioFormat, Client, Keyword, SynthesisSession, TranscriptionSession, WavegateError
from wavegate.audio import bytes_per_second
from wavegate.speech import v1

LONGEST_LINE_BYTES = 2**28
LEAKS_END_WITHIN_S = 8.0

_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (wavegate.ConnectionLostError, "CONNECTION_LOST"),
    (wavegate.GatewayUnavailableError, "GATEWAY_UNAVAILABLE"),
    (wavegate.InvalidRequestError, "INVALID_REQUEST"),
    (wavegate.AccessDeniedError, "ACCESS_DENIED"),
    (wavegate.SessionNotFoundError, "SESSION_NOT_FOUND"),
    (wavegate.ConflictError, "CONFLICT"),
    (wavegate.CapacityError, "CAPACITY"),
    (wavegate.UpstreamError, "UPSTREAM"),
    (wavegate.DeadlineError, "DEADLINE"),
    (wavegate.SessionClosedError, "SESSION_CLOSED"),
    (WavegateError, "OTHER"),
    (asyncio.CancelledError, "CANCELLED"),
    (ValueError, "ARGUMENT"),
    (TypeError, "ARGUMENT"),
)


class CallersOwn(Exception):
    """What the caller's iterator raises."""


class NotImplementedHere(Exception):
    """A command, or an argument of one, that this client has nothing for."""


# -- what the client says, as JSON ------------------------------------------------------------------------------


def error_json(error: BaseException) -> dict[str, Any]:
    """An error as the protocol has it."""
    if isinstance(error, NotImplementedHere):
        return {"kind": "NOT_IMPLEMENTED", "message": str(error)}
    if isinstance(error, CallersOwn):
        return {"kind": "CALLER", "message": str(error)}
    kind = next((name for kind, name in _KINDS if isinstance(error, kind)), "OTHER")
    if not isinstance(error, WavegateError):
        return {"kind": kind, "message": f"{type(error).__name__}: {error}"}
    return {
        "kind": kind,
        "code": error.code,
        "reason": error.reason,
        "message": str(error),
        "retryable": error.retryable,
        "retry_delay": error.retry_delay_s,
        "field_violations": [
            {"field": v.field, "description": v.description} for v in error.field_violations
        ],
        "quota_violations": [
            {"subject": v.subject, "description": v.description} for v in error.quota_violations
        ],
        "metadata": dict(error.metadata),
    }


_RENAMED = {
    ("AudioFormat", "sample_rate_hertz"): "sample_rate_hz",
    ("SessionEnded", "status"): "error",
}


def as_json(value: Any, descriptor: Any) -> dict[str, Any]:
    """One of the client's dataclasses as the message of the contract that it stands for."""
    found = {}
    for item in descriptor.fields:
        name = _RENAMED.get((descriptor.name, item.name)) or _python_name(item)
        inner = getattr(value, name, None)
        if inner is not None:
            found[item.name] = _field_json(inner, item)
    return found


def _python_name(item: Any) -> str:
    is_time = item.message_type is not None and item.message_type.name == "Duration"
    return f"{item.name}_s" if is_time else str(item.name)


def _field_json(value: Any, item: Any) -> Any:
    if item.message_type is not None and item.message_type.GetOptions().map_entry:
        return dict(value)
    if item.is_repeated:
        if isinstance(value, Mapping):  # the tags of a voice
            return [{"key": key, "values": list(values)} for key, values in value.items()]
        return [_one_json(one, item) for one in value]
    return _one_json(value, item)


def _one_json(value: Any, item: Any) -> Any:
    if item.enum_type is not None:
        prefix = item.enum_type.values[0].name.removesuffix("UNSPECIFIED")
        return f"{prefix}{'UNSPECIFIED' if value == 'UNKNOWN' else value}"
    if item.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(value).decode()
    if item.message_type is None:
        return value
    match item.message_type.name:
        case "Duration":
            return f"{value:.9f}s"
        case "Timestamp":
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case "Status":
            return error_json(value)
        case "Struct":
            return value
        case "KeywordList":
            return {"keywords": [as_json(k, v1.Keyword.DESCRIPTOR) for k in value]}
        case "EffectiveSettings":
            if isinstance(value, wavegate.SynthesisSettings):
                return {"synthesis": as_json(value, v1.SynthesisSettings.DESCRIPTOR)}
            return {"transcription": as_json(value, v1.TranscriptionSettings.DESCRIPTOR)}
    return as_json(value, item.message_type)


_EVENTS: dict[type, tuple[str, Any]] = {
    wavegate.SessionStarted: ("session_started", v1.SessionStarted.DESCRIPTOR),
    wavegate.UtteranceStarted: ("utterance_started", v1.UtteranceStarted.DESCRIPTOR),
    wavegate.AudioChunk: ("audio", v1.AudioChunk.DESCRIPTOR),
    wavegate.WordTimings: ("word_timings", v1.WordTimings.DESCRIPTOR),
    wavegate.UtteranceCompleted: ("utterance_completed", v1.UtteranceCompleted.DESCRIPTOR),
    wavegate.UtteranceCancelled: ("utterance_cancelled", v1.UtteranceCancelled.DESCRIPTOR),
    wavegate.UtteranceFailed: ("utterance_failed", v1.UtteranceFailed.DESCRIPTOR),
    wavegate.SettingsAck: ("settings_ack", v1.SettingsAck.DESCRIPTOR),
    wavegate.ConnectionEvent: ("connection", v1.ConnectionEvent.DESCRIPTOR),
    wavegate.GatewayWarning: ("warning", v1.Warning.DESCRIPTOR),
    wavegate.GoAway: ("go_away", v1.GoAway.DESCRIPTOR),
    wavegate.SessionEnded: ("session_ended", v1.SessionEnded.DESCRIPTOR),
    wavegate.Transcript: ("transcript", v1.Transcript.DESCRIPTOR),
    wavegate.SpeechStarted: ("speech_started", v1.SpeechStarted.DESCRIPTOR),
    wavegate.SpeechEnded: ("speech_ended", v1.SpeechEnded.DESCRIPTOR),
    wavegate.AudioProgress: ("progress", v1.AudioProgress.DESCRIPTOR),
}


def event_json(event: Any) -> dict[str, Any]:
    """An event of a session, under its name in the contract or in the protocol."""
    if isinstance(event, wavegate.SessionResumed):
        resumed = {"session_id": event.session_id, "outage": event.outage_s, "attempts": event.attempts}
        return {"session_resumed": resumed}
    if isinstance(event, wavegate.SessionMoved):
        moved = {
            "session_started": as_json(event.started, v1.SessionStarted.DESCRIPTOR),
            "previous_session_id": event.previous_session_id,
            "target": event.target,
            "lost_audio": event.lost_audio_s,
        }
        return {"session_moved": moved}
    name, descriptor = _EVENTS[type(event)]
    return {name: as_json(event, descriptor)}


def span_json(span: wavegate.TraceSpan) -> dict[str, Any]:
    """A span as the contract's message."""
    return {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_span_id": span.parent_id,
        "parent_is_remote": span.parent_is_remote,
        "name": span.name,
        "kind": f"KIND_{'UNSPECIFIED' if span.kind == 'UNKNOWN' else span.kind}",
        "start_time": _timestamp(span.start_ns),
        "end_time": _timestamp(span.end_ns),
        "attributes": span.attributes,
        "failed": span.failed,
        "error_message": span.error_message,
        "links": [{"trace_id": trace_id, "span_id": span_id} for trace_id, span_id in span.links],
    }


def _timestamp(ns: int) -> str:
    seconds, rest = divmod(ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"


# -- what the judge says, for the client ------------------------------------------------------------------------


def options_of(message: Any, settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings in ProtoJSON as keyword arguments."""
    json_format.ParseDict(dict(settings or {}), message)
    found: dict[str, Any] = {}
    for item, value in message.ListFields():
        name = _python_name(item)
        if item.enum_type is not None:
            number = item.enum_type.values_by_number[value].name
            found[name] = number.removeprefix(item.enum_type.values[0].name.removesuffix("UNSPECIFIED"))
        elif item.message_type is None:
            found[name] = value
        elif item.message_type.name == "Duration":
            found[name] = value.ToTimedelta().total_seconds()
        elif item.message_type.name == "Struct":
            found[name] = json_format.MessageToDict(value)
        else:
            found[name] = [
                Keyword(k.phrase, k.boost if k.HasField("boost") else None) for k in value.keywords
            ]
    return found


def format_of(value: Mapping[str, Any] | None) -> AudioFormat | None:
    if value is None:
        return None
    message = v1.AudioFormat()
    json_format.ParseDict(dict(value), message)
    name = v1.AudioEncoding.Name(message.encoding).removeprefix("AUDIO_ENCODING_")
    encoding: Any = "LINEAR16" if name == "UNSPECIFIED" else name
    return AudioFormat(encoding, message.sample_rate_hertz)


def given(**arguments: Any) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in arguments.items() if value is not None}


@dataclass
class Held:
    """A session that the judge has a name for."""

    client: str
    session: Any
    utterances: dict[str, wavegate.Utterance] = field(default_factory=dict)
    reading: asyncio.Task[None] | None = None


class Driver:
    """Carries out commands and answers them."""

    def __init__(self) -> None:
        self.clients: dict[str, Client] = {}
        self.sessions: dict[str, Held] = {}
        self.controls: dict[str, tuple[str, wavegate.SettingsStream, asyncio.Task[None]]] = {}
        self.own: set[asyncio.Task[Any]] = set()
        self.quitting = asyncio.Event()

    def say(self, **line: Any) -> None:
        """One line to the judge. Waits where the judge reads slowly, and with it all else."""
        sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
        sys.stdout.flush()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self.own.add(task)
        task.add_done_callback(self.own.discard)
        return task

    async def run(self) -> None:
        """Take commands until the judge says quit, or goes."""
        current = asyncio.current_task()
        assert current is not None
        self.own.add(current)
        reader = asyncio.StreamReader(limit=LONGEST_LINE_BYTES)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        taking = self.spawn(self._take(reader))
        quitting = self.spawn(self._wait())
        await asyncio.wait([taking, quitting], return_when=asyncio.FIRST_COMPLETED)

    async def _wait(self) -> None:
        await self.quitting.wait()

    async def _take(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            self.spawn(self._answer(json.loads(line)))
            await asyncio.sleep(0)  # commands begin in the order in which they come

    async def _answer(self, command: dict[str, Any]) -> None:
        number, do = command.pop("id"), command.pop("do")
        arguments = {name: value for name, value in command.items() if value is not None}
        try:
            method = getattr(self, f"do_{do}", None)
            if method is None:
                raise NotImplementedHere(do)
            self.say(id=number, ok=await method(**arguments) or {})
        except (Exception, asyncio.CancelledError) as error:
            self.say(id=number, error=error_json(error))
        if do == "quit":
            self.quitting.set()

    # -- clients ------------------------------------------------------------------------------------------------

    async def do_hello(self) -> dict[str, Any]:
        return {
            "language": "python",
            "version": platform.python_version(),
            "features": [],
        }

    async def do_connect(
        self,
        client: str,
        targets: list[str],
        tls: dict[str, str] | None = None,
        token: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        tls_options: dict[str, Any] = {}
        if tls is not None:
            tls_options["tls"] = True
            if roots := tls.get("root_certificates"):
                tls_options["root_certificates"] = roots.encode()
            if key := tls.get("private_key"):
                tls_options["client_certificate"] = (key.encode(), tls["certificate_chain"].encode())
        self.clients[client] = Client(
            targets=targets, token=token, metadata=[*(metadata or {}).items()], **tls_options
        )

    async def do_close_client(self, client: str) -> None:
        closed = self.clients.pop(client)
        await closed.close()
        for name in [name for name, held in self.sessions.items() if held.client == client]:
            if (reading := self.sessions.pop(name).reading) is not None:
                await asyncio.wait([reading])
        for name in [name for name, (of, _, _) in self.controls.items() if of == client]:
            await asyncio.wait([self.controls.pop(name)[2]])

    # -- sessions -----------------------------------------------------------------------------------------------

    async def _open(
        self, client: str, name: str, session: Any, events: bool, traceparent: str | None
    ) -> dict[str, Any]:
        if traceparent:
            context.attach(propagate.extract({"traceparent": traceparent}))  # of this task alone
        await session.__aenter__()
        self.sessions[name] = held = Held(client, session)
        if events:
            held.reading = self.spawn(self._read(name, session))
        return {"session_started": as_json(session.started, v1.SessionStarted.DESCRIPTOR)}

    async def do_open_synthesis(
        self,
        client: str,
        session: str,
        settings: Mapping[str, Any] | None = None,
        audio_format: Mapping[str, Any] | None = None,
        events: bool = True,
        traceparent: str | None = None,
        max_audio_lead: float | None = None,
        **rest: Any,
    ) -> dict[str, Any]:
        opened = self.clients[client].synthesize(
            audio_format=format_of(audio_format),
            **given(max_audio_lead_s=max_audio_lead),
            **_session_options(rest),
            **options_of(v1.SynthesisSettings(), settings),
        )
        return await self._open(client, session, opened, events, traceparent)

    async def do_open_transcription(
        self,
        client: str,
        session: str,
        settings: Mapping[str, Any] | None = None,
        audio_format: Mapping[str, Any] | None = None,
        events: bool = True,
        traceparent: str | None = None,
        keep_alive: bool | None = None,
        initial_audio_offset: float | None = None,
        **rest: Any,
    ) -> dict[str, Any]:
        opened = self.clients[client].transcribe(
            audio_format=format_of(audio_format),
            **given(keep_alive=keep_alive, initial_audio_offset_s=initial_audio_offset),
            **_session_options(rest),
            **options_of(v1.TranscriptionSettings(), settings),
        )
        return await self._open(client, session, opened, events, traceparent)

    async def _read(self, name: str, session: Any) -> None:
        try:
            async for event in session:
                self.say(session=name, event=event_json(event))
                await asyncio.sleep(0)
        except WavegateError as error:
            self.say(session=name, over=error_json(error))
        else:
            self.say(session=name, over=None)

    async def do_events(self, session: str, on: bool) -> None:
        held = self.sessions[session]
        if on and held.reading is None:
            held.reading = self.spawn(self._read(session, held.session))
        elif not on and held.reading is not None:
            held.reading.cancel()
            await asyncio.wait([held.reading])
            held.reading = None

    async def _leave(self, name: str, error: BaseException | None) -> None:
        held = self.sessions[name]
        await held.session.__aexit__(type(error) if error else None, error, None)

    async def do_close(self, session: str) -> None:
        await self._leave(session, None)

    async def do_abort(self, session: str) -> None:
        await self._leave(session, CallersOwn("something of the caller's went wrong"))

    async def do_drop(self, session: str) -> None:
        held = self.sessions.pop(session)
        if held.reading is not None:
            held.reading.cancel()
            await asyncio.wait([held.reading])
        del held
        gc.collect()

    async def do_end(self, session: str) -> None:
        await self.sessions[session].session.end()

    async def do_discard(self, session: str) -> None:
        await self.sessions[session].session.discard()

    async def do_update_settings(
        self, session: str, settings: Mapping[str, Any] | None = None, **rest: Any
    ) -> dict[str, Any]:
        held = self.sessions[session]
        is_synthesis = isinstance(held.session, SynthesisSession)
        message = v1.SynthesisSettings() if is_synthesis else v1.TranscriptionSettings()
        ack = await held.session.update_settings(**options_of(message, settings), **rest)
        return {"settings_ack": as_json(ack, v1.SettingsAck.DESCRIPTOR)}

    # -- speech -------------------------------------------------------------------------------------------------

    def _note(self, session: str, utterance: wavegate.Utterance) -> dict[str, Any]:
        self.sessions[session].utterances[utterance.utterance_id] = utterance
        return {"utterance_id": utterance.utterance_id}

    async def do_say(self, session: str, text: str, utterance_id: str | None = None) -> dict[str, Any]:
        held = self.sessions[session]
        return self._note(session, await held.session.say(text, utterance_id=utterance_id))

    async def do_say_tokens(
        self,
        session: str,
        tokens: list[str],
        interval: float = 0.0,
        utterance_id: str | None = None,
        fail_after: int | None = None,
    ) -> dict[str, Any]:
        async def come() -> AsyncIterator[str]:
            for number, token in enumerate(tokens):
                if number == fail_after:
                    raise CallersOwn("the tokens ran dry")
                yield token
                await asyncio.sleep(interval)

        held = self.sessions[session]
        return self._note(session, await held.session.say(come(), utterance_id=utterance_id))

    async def do_send_text(
        self, session: str, text: str, utterance_id: str | None = None, end_utterance: bool = False
    ) -> dict[str, Any]:
        utterance = await self.sessions[session].session.send_text(
            text, utterance_id=utterance_id, end_utterance=end_utterance
        )
        return self._note(session, utterance)

    async def do_flush(self, session: str, utterance_id: str | None = None) -> None:
        await self.sessions[session].session.flush(utterance_id)

    async def do_end_utterance(self, session: str, utterance_id: str | None = None) -> None:
        await self.sessions[session].session.end_utterance(utterance_id)

    async def do_cancel(
        self, session: str, utterance_id: str | None = None, playback_offset: float | None = None
    ) -> None:
        await self.sessions[session].session.cancel(utterance_id, playback_offset)

    async def do_report_playback(self, session: str, utterance_id: str, playback_offset: float) -> None:
        await self.sessions[session].session.report_playback(utterance_id, playback_offset)

    async def do_wait(self, session: str, utterance_id: str) -> dict[str, Any]:
        utterance = self.sessions[session].utterances[utterance_id]
        return event_json(await utterance.wait())

    async def do_read_utterance(self, session: str, utterance_id: str) -> dict[str, Any]:
        audio = await self.sessions[session].utterances[utterance_id].read()
        return {"audio": base64.b64encode(audio).decode()}

    # -- listening ----------------------------------------------------------------------------------------------

    async def do_send_audio(
        self, session: str, content: str, pace: float | None = None, piece: float | None = None
    ) -> None:
        held = self.sessions[session]
        audio = base64.b64decode(content)
        if pace is None and piece is None:
            await held.session.send_audio(audio)
            return
        rate = bytes_per_second(held.session.started.audio_format)
        step = max(1, round(rate * (piece or 0.1)))
        pieces = [audio[at : at + step] for at in range(0, len(audio), step)]

        async def come() -> AsyncIterator[bytes]:
            for number, one in enumerate(pieces):
                if number and pace:
                    await asyncio.sleep(step / rate / pace)
                yield one

        await held.session.stream_audio(come(), paced=pace == 1)

    async def do_finalize(self, session: str) -> dict[str, Any]:
        return event_json(await self.sessions[session].session.finalize())

    # -- whole texts and recordings -----------------------------------------------------------------------------

    async def do_synthesize_once(
        self,
        client: str,
        text: str,
        settings: Mapping[str, Any] | None = None,
        audio_format: Mapping[str, Any] | None = None,
        request_id: str = "",
    ) -> dict[str, Any]:
        speech = await self.clients[client].synthesize_once(
            text,
            audio_format=format_of(audio_format),
            request_id=request_id,
            **options_of(v1.SynthesisSettings(), settings),
        )
        return {
            "audio": base64.b64encode(speech.audio).decode(),
            "session_started": as_json(speech.started, v1.SessionStarted.DESCRIPTOR),
            "utterance_completed": as_json(speech.completed, v1.UtteranceCompleted.DESCRIPTOR),
            "warnings": [as_json(w, v1.Warning.DESCRIPTOR) for w in speech.warnings],
            "words": [as_json(w, v1.WordTimings.Word.DESCRIPTOR) for w in speech.words],
        }

    async def do_transcribe_once(
        self,
        client: str,
        content: str | None = None,
        uri: str | None = None,
        audio_format: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        request_id: str = "",
        timeout: float | None = None,
    ) -> dict[str, Any]:
        found = await self.clients[client].transcribe_once(
            base64.b64decode(content) if content is not None else None,
            uri=uri,
            audio_format=format_of(audio_format),
            request_id=request_id,
            **given(timeout_s=timeout),
            **options_of(v1.TranscriptionSettings(), settings),
        )
        return as_json(found, v1.RecognizeResponse.DESCRIPTOR)

    # -- voices, sessions, traces -------------------------------------------------------------------------------

    async def do_list_voices(self, client: str, model: str = "", language_code: str = "") -> dict[str, Any]:
        voices = self.clients[client].list_voices(model=model, language_code=language_code)
        return {"voices": [as_json(v, v1.Voice.DESCRIPTOR) async for v in voices]}

    async def do_get_session(self, client: str, session_id: str) -> dict[str, Any]:
        session = await self.clients[client].get_session(session_id)
        return {"session": as_json(session, v1.Session.DESCRIPTOR)}

    async def do_list_sessions(self, client: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
        found = self.clients[client].list_sessions(labels=labels)
        return {"sessions": [as_json(s, v1.Session.DESCRIPTOR) async for s in found]}

    async def do_close_session(self, client: str, session_id: str, discard: bool = False) -> None:
        await self.clients[client].close_session(session_id, discard=discard)

    async def do_get_trace(self, client: str, trace_id: str = "", session_id: str = "") -> dict[str, Any]:
        spans = await self.clients[client].get_trace(trace_id=trace_id, session_id=session_id)
        return {"spans": [span_json(span) for span in spans]}

    # -- control ------------------------------------------------------------------------------------------------

    async def do_open_control(self, client: str, control: str) -> None:
        stream = self.clients[client].settings_stream()
        await stream.__aenter__()
        self.controls[control] = client, stream, self.spawn(self._watch(control, stream))

    async def _watch(self, name: str, stream: wavegate.SettingsStream) -> None:
        try:
            async for change in stream:
                event = event_json(change.event)
                if "settings_ack" in event:
                    event = {"ack": event["settings_ack"]}
                self.say(control=name, session_id=change.session_id, event=event)
        except WavegateError as error:
            self.say(control=name, over=error_json(error))
        else:
            self.say(control=name, over=None)

    async def do_control_update(
        self,
        control: str,
        session_id: str,
        synthesis: Mapping[str, Any] | None = None,
        transcription: Mapping[str, Any] | None = None,
        **rest: Any,
    ) -> dict[str, Any]:
        _, stream, _ = self.controls[control]
        if transcription is not None:
            options = options_of(v1.TranscriptionSettings(), transcription)
            ack = await stream.update_transcription(session_id, **options, **rest)
        else:
            options = options_of(v1.SynthesisSettings(), synthesis)
            ack = await stream.update_synthesis(session_id, **options, **rest)
        return {"ack": as_json(ack, v1.SettingsAck.DESCRIPTOR)}

    async def do_close_control(self, control: str) -> None:
        _, stream, watching = self.controls.pop(control)
        await stream.__aexit__(None, None, None)
        await asyncio.wait([watching])

    # -- the end ------------------------------------------------------------------------------------------------

    async def do_leaks(self) -> dict[str, Any]:
        closed = [n for n, h in self.sessions.items() if h.client not in self.clients]
        for name in closed:
            del self.sessions[name]
        try:
            async with asyncio.timeout(LEAKS_END_WITHIN_S):
                while self._living():  # noqa: ASYNC110 - nobody tells when a task has ended
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pass
        return {"leaked": self._living()}

    def _living(self) -> list[str]:
        """What belongs to nothing that is open. Sessions that are open have tasks of their own, which may live."""
        gc.collect()
        found = [
            f"thread {t.name}"
            for t in threading.enumerate()
            if t is not threading.main_thread() and not t.name.startswith("asyncio_") and not t.daemon
        ]
        if not self.clients:
            tasks = asyncio.all_tasks() - self.own
            found += [f"task {task.get_coro()}" for task in tasks if not task.done()]
            found += [
                repr(o) for o in gc.get_objects() if isinstance(o, SynthesisSession | TranscriptionSession)
            ]
        return found

    async def do_quit(self) -> None:
        for client in [*self.clients]:
            await self.do_close_client(client)


def _session_options(rest: dict[str, Any]) -> dict[str, Any]:
    """The arguments that both kinds of session have."""
    names = {"resume_window": "resume_window_s", "open_timeout": "open_timeout_s"}
    return {names.get(name, name): value for name, value in rest.items()}


if __name__ == "__main__":
    asyncio.run(Driver().run())
