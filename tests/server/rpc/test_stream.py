"""How a call's input ends: a half-close, an `end_session` and a cancel told apart, on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any
from unittest.mock import MagicMock

import grpc.aio
import pytest
from google.rpc import error_details_pb2
from wavegate.speech import v1
from wavegate.speech.v1 import types_pb2
from wavegate_server import errors
from wavegate_server.audio import AudioFormat, Encoding
from wavegate_server.rpc import stream, trace
from wavegate_server.rpc.convert import synthesis as convert_synthesis
from wavegate_server.rpc.convert import transcription as convert_transcription
from wavegate_server.rpc.gateway import Gateway
from wavegate_server.session.registry import Registry
from wavegate_server.session.synthesis import SynthesisSession
from wavegate_server.session.transcription import TranscriptionSession
from wavegate_server.telemetry import NullTelemetry
from wavegate_server.waves import tts

from tests.support import listening, speaking
from tests.support.recognizer import Recognizer, speech
from tests.support.transport import FakeDialer
from tests.support.virtual_time import virtual_time

CANCEL_SHOWS_S = 0.05
"""How long a cancel looks like an end of input, at most (measured on grpcio 1.85)."""


class Aborted(grpc.aio.AbortError):  # type: ignore[misc]
    """How a call ends that has a status other than OK."""

    def __init__(self, code: grpc.StatusCode, trailers: dict[str, bytes]) -> None:
        super().__init__(code)
        self.code = code
        self.status = types_pb2.Status.FromString(trailers["grpc-status-details-bin"])


class Input:
    """A call's context: what the caller sends, and when; `None` is the end of it."""

    def __init__(self, *messages: Any) -> None:
        self._messages: asyncio.Queue[Any] = asyncio.Queue()
        self.written: list[Any] = []
        self.stuck = False
        """Whether the caller has ceased to read."""
        for message in messages:
            self.send(message)

    def send(self, message: Any) -> None:
        self._messages.put_nowait(grpc.aio.EOF if message is None else message)

    async def read(self) -> Any:
        return await self._messages.get()

    async def write(self, response: Any) -> None:
        if self.stuck:
            await asyncio.Event().wait()
        self.written.append(response)

    async def send_initial_metadata(self, metadata: Any) -> None:
        return

    def trailing_metadata(self) -> tuple[Any, ...]:
        return ()

    async def abort(self, code: grpc.StatusCode, details: str, trailers: Any) -> None:
        raise Aborted(code, dict(trailers))


class Served:
    """A call of a gateway, and the upstream behind it."""

    def __init__(self, kind: str, *, nothing_sent: bool = False) -> None:
        self.kind = kind
        self.dialer = FakeDialer(Recognizer if kind == "stt" else speaking.Voice)
        self.gateway: Any = MagicMock(spec=Gateway, registry=Registry(0, 0), start_timeout_s=10.0)
        if kind == "stt":
            self.input = Input(
                v1.TranscribeStreamRequest(start=v1.StartTranscription()),
                v1.TranscribeStreamRequest(audio=v1.AudioInput(content=speech([1, 2, 3]))),
            )
            convert: Any = convert_transcription
        else:
            self.input = Input(
                v1.SynthesizeStreamRequest(start=v1.StartSynthesis()),
                v1.SynthesizeStreamRequest(text=v1.TextInput(text="Not all of it", utterance_id="u")),
            )
            convert = convert_synthesis
        if nothing_sent:
            self.input = Input()
        how = stream.Kind(kind, self._open, convert.command, convert.response, {})
        self.known = trace.Call("SynthesizeStream", "someone", NullTelemetry().server_span("", ()))
        trace._current.set(self.known)
        self.call = asyncio.create_task(stream.serve(self.gateway, how, self.input))

    def _open(self, start: Any, context: Any) -> Any:
        if self.kind == "stt":
            given = AudioFormat(Encoding.LINEAR16, 8000)
            return TranscriptionSession(listening.context(self.dialer), given, {})
        settings = {**tts.defaults(tts.Mode.CONTINUATIONS), **speaking.VOICE}
        given = AudioFormat(Encoding.LINEAR16, 24000)
        return SynthesisSession(speaking.context(self.dialer, defaults=settings), given, settings)

    def finalized(self) -> list[str]:
        """What reached the upstream that makes it finish what was begun."""
        found = []
        for transport in self.dialer.transports:
            for message in transport.sent:
                body = json.loads(message) if isinstance(message, str) else {}
                if body.get("type") in ("close_stream", "finalize") or body.get("continue") is False:
                    found.append(str(body))
        return found

    def cut(self, error: errors.WavegateError) -> None:
        """As the interceptor does."""
        self.known.cut = error
        self.call.cancel()

    async def end(self) -> list[Any]:
        """Wait for its end; what was written."""
        with contextlib.suppress(asyncio.CancelledError):
            await self.call
        return self.input.written


@pytest.mark.parametrize("kind", ["stt", "tts"])
@virtual_time
async def test_a_half_close_finishes_after_the_time_in_which_it_could_be_a_cancel(kind: str) -> None:
    served = Served(kind)
    await asyncio.sleep(1.0)
    served.input.send(None)
    await asyncio.sleep(CANCEL_SHOWS_S)
    assert not served.finalized()
    await asyncio.sleep(stream.GRACE_S - CANCEL_SHOWS_S + 0.001)
    assert len(served.finalized()) == 1
    last = (await served.end())[-1]
    assert last.session_ended.reason == v1.SessionEnded.REASON_CLIENT_HALF_CLOSE


@pytest.mark.parametrize("kind", ["stt", "tts"])
@virtual_time
async def test_an_end_of_session_finishes_at_once(kind: str) -> None:
    served = Served(kind)
    await asyncio.sleep(1.0)
    request = v1.TranscribeStreamRequest if kind == "stt" else v1.SynthesizeStreamRequest
    served.input.send(request(end_session=v1.EndSession()))
    await asyncio.sleep(0.001)
    assert len(served.finalized()) == 1
    served.input.send(None)
    last = (await served.end())[-1]
    assert last.session_ended.reason == v1.SessionEnded.REASON_CLIENT_END


@pytest.mark.parametrize("shows_after_s", [0.0, 0.01, 0.03, CANCEL_SHOWS_S])
@pytest.mark.parametrize("kind", ["stt", "tts"])
@virtual_time
async def test_a_cancel_finishes_nothing_upstream(kind: str, shows_after_s: float) -> None:
    """It looks like a half-close first; the upstream is cut, and never asked to go on to an end."""
    served = Served(kind)
    await asyncio.sleep(1.0)
    served.input.send(None)
    await asyncio.sleep(shows_after_s)
    served.call.cancel()
    await served.end()
    await asyncio.sleep(10.0)
    assert not served.finalized()
    assert all(transport.aborted for transport in served.dialer.transports)
    assert not len(served.gateway.registry)


@pytest.mark.parametrize("kind", ["stt", "tts"])
@virtual_time
async def test_a_discard_finishes_nothing_upstream(kind: str) -> None:
    served = Served(kind)
    await asyncio.sleep(1.0)
    request = v1.TranscribeStreamRequest if kind == "stt" else v1.SynthesizeStreamRequest
    served.input.send(request(end_session=v1.EndSession(discard=True)))
    served.input.send(None)
    last = (await served.end())[-1]
    await asyncio.sleep(10.0)
    assert last.session_ended.status.code == 0
    assert not served.finalized()
    assert all(transport.aborted for transport in served.dialer.transports)


@pytest.mark.parametrize("kind", ["stt", "tts"])
@pytest.mark.parametrize("stuck_in", ["the start", "a write", "the end of input", "a refusal"])
@virtual_time
async def test_a_call_that_the_gateway_cuts_has_its_status(kind: str, stuck_in: str) -> None:
    """Whatever its caller does not do: begin, read, or end its input. And what it was told last is its status."""
    served = Served(kind)
    stopped = errors.GatewayDraining("the gateway has stopped")
    expected = "GATEWAY_DRAINING"
    match stuck_in:
        case "the start" | "a refusal":
            served.call.cancel()
            served = Served(kind, nothing_sent=True)
            if stuck_in == "a refusal":
                served.input.send(
                    v1.SynthesizeStreamRequest() if kind == "tts" else v1.TranscribeStreamRequest()
                )
                expected = "MESSAGE_ORDER"
            await asyncio.sleep(0.5)
        case "a write":
            await asyncio.sleep(0.5)
            served.input.stuck = True
            request = v1.SynthesizeStreamRequest if kind == "tts" else v1.TranscribeStreamRequest
            served.input.send(request(end_session=v1.EndSession()))
            await asyncio.sleep(5)
        case "the end of input":
            await asyncio.sleep(0.5)
            for session in served.gateway.registry:
                session.fail(errors.SessionIdle("nothing came"))
            expected = "SESSION_IDLE"
            await asyncio.sleep(0.5)
    assert not served.call.done()
    served.cut(stopped)
    with pytest.raises(Aborted) as caught:
        await served.call
    info = error_details_pb2.ErrorInfo()
    assert caught.value.status.details[0].Unpack(info)
    assert info.reason == expected
    if stuck_in != "a write":
        last = served.input.written[-1].session_ended
        assert last.status == caught.value.status
    assert all(t.aborted or t.closed_code is not None for t in served.dialer.transports)
