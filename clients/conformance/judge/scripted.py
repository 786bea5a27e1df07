"""A gateway that follows a script: what a real one does too seldom, or not yet."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc import aio
from wavegate.speech import v1

from clients.conformance.judge.messages import Wrong

SESSION_ID = "scripted-1"


class Call:
    """One call of a client's, as the script has it."""

    def __init__(self, context: Any, response: Any) -> None:
        self._context = context
        self._response = response
        self.metadata = dict(context.invocation_metadata() or ())
        self.has_deadline = (context.time_remaining() or 2**31) < 10**7
        self.received: list[Any] = []
        self._sequence = 0

    async def read(self) -> Any:
        """The next request. Raises `Wrong` where its number is not the next, and at the end of the input."""
        request = await self._context.read()
        if request is aio.EOF:
            raise Wrong("the client half-closed where it should not")
        if self.received and request.input_sequence != self.received[-1].input_sequence + 1:
            is_resumed = self.received[-1].WhichOneof("input") == "start"
            is_last = request.WhichOneof("input") == "end_session" and request.end_session.discard
            if not (is_resumed or is_last):
                raise Wrong(
                    f"input {request.input_sequence} came after {self.received[-1].input_sequence}: {request}"
                )
        self.received.append(request)
        return request

    async def send(self, *, sequence: int | None = None, more: bytes = b"", **event: Any) -> None:
        """A response, numbered; `more` is put behind its bytes, as fields that nobody knows."""
        self._sequence = self._sequence + 1 if sequence is None else sequence
        acknowledged = self.received[-1].input_sequence if self.received else 0
        response = self._response(sequence=self._sequence, acknowledged_input_sequence=acknowledged, **event)
        await self._context.write(response.SerializeToString() + more)

    async def started(
        self, *, sequence: int = 1, window_s: int = 0, more: bytes = b"", **fields: Any
    ) -> None:
        """`session_started`."""
        limits = v1.SessionLimits()
        limits.resume_window.seconds = window_s
        is_synthesis = self._response is v1.SynthesizeStreamResponse
        settings = (
            v1.EffectiveSettings(synthesis=v1.SynthesisSettings(voice_id="magnus"))
            if is_synthesis
            else v1.EffectiveSettings(transcription=v1.TranscriptionSettings(language_code="en"))
        )
        if not self._sequence:
            await self._context.send_initial_metadata((("wavegate-session-id", SESSION_ID),))
        await self.send(
            sequence=sequence,
            session_started=v1.SessionStarted(
                session_id=SESSION_ID,
                audio_format=v1.AudioFormat(
                    encoding=v1.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=24000 if is_synthesis else 16000
                ),
                settings=settings,
                settings_revision=1,
                limits=limits,
                gateway_version="9.9.9",
                **fields,
            ),
            more=more,
        )

    async def ended(self, reason: Any = v1.SessionEnded.REASON_CLIENT_END) -> None:
        """The last word of a session that ended well; reads the input to its end."""
        await self.send(session_ended=v1.SessionEnded(reason=reason))
        while await self._context.read() is not aio.EOF:
            pass

    async def lose(self, code: str, details: str) -> None:
        """End the call without a last word, as what is in between does."""
        await self._context.abort(grpc.StatusCode[code], details)


Script = Callable[[Call], Awaitable[None]]


class Scripted:
    """The running one. Each call follows the next script; the last one serves all further calls."""

    def __init__(self, scripts: Sequence[Script]) -> None:
        self.target = ""
        self.calls: list[Call] = []
        self.wrong: list[str] = []
        """What clients did wrong, as scripts found it."""
        self._scripts = scripts

    def handler(self, response: type[Message]) -> Callable[[Any, Any], Awaitable[None]]:
        async def serve(_: Any, context: Any) -> None:
            call = Call(context, response)
            self.calls.append(call)
            script = self._scripts[min(len(self.calls), len(self._scripts)) - 1]
            try:
                await script(call)
            except Wrong as wrong:
                self.wrong.append(str(wrong))
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(wrong))

        return serve


@contextlib.asynccontextmanager
async def scripted(*scripts: Script) -> AsyncIterator[Scripted]:
    """Serve both kinds of session by these scripts."""
    gateway = Scripted(scripts)
    server = aio.server()
    for service, method, request, response in (
        ("SynthesisService", "SynthesizeStream", v1.SynthesizeStreamRequest, v1.SynthesizeStreamResponse),
        (
            "TranscriptionService",
            "TranscribeStream",
            v1.TranscribeStreamRequest,
            v1.TranscribeStreamResponse,
        ),
    ):
        handler = grpc.stream_stream_rpc_method_handler(
            gateway.handler(response), request_deserializer=request.FromString, response_serializer=bytes
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(f"wavegate.speech.v1.{service}", {method: handler}),)
        )
    gateway.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield gateway
    finally:
        await server.stop(0)
