"""How a call's input ends: a half-close, an `end_session` and a cancel told apart, on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any
from unittest.mock import MagicMock

import grpc.aio
import pytest
from wavegate.speech import v1
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


class Input:
    """A call's context: what the caller sends, and when; `None` is the end of it."""

    def __init__(self, *messages: Any) -> None:
        self._messages: asyncio.Queue[Any] = asyncio.Queue()
        self.written: list[Any] = []
        for message in messages:
            self.send(message)

    def send(self, message: Any) -> None:
        self._messages.put_nowait(grpc.aio.EOF if message is None else message)

    async def read(self) -> Any:
        return await self._messages.get()

    async def write(self, response: Any) -> None:
        self.written.append(response)

    async def send_initial_metadata(self, metadata: Any) -> None:
        return


class Served:
    """A call of a gateway, and the upstream behind it."""

    def __init__(self, kind: str) -> None:
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
        how = stream.Kind(kind, self._open, convert.command, convert.response, {})
        trace._current.set(trace.Call("SynthesizeStream", "someone", NullTelemetry().server_span("", ())))
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
