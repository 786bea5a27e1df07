"""The two ways to the upstream that are compared: through the gateway, and straight to it.

Both send the same and hear the same, with the least of a client around it: grpc.aio stubs here, the `websockets`
library there, with the settings and the codecs that the gateway itself uses. So what is between the two is the
gateway and its hop.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any, Protocol

import grpc
import grpc.aio
import msgspec
import pybase64
from wavegate.speech import v1
from wavegate.speech.v1 import synthesis_service_pb2_grpc, transcription_service_pb2_grpc
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.wire import SAMPLE_RATE_STT_HZ, SAMPLE_RATE_TTS_HZ, Heard, Order

OPTIONS = [
    # What the Python client sets: small windows, so that a barge-in is heard at once.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 65536),
    # Else all channels of a process share one connection.
    ("grpc.use_local_subchannel_pool", 1),
]


class Failed(Exception):
    """Raised where a session does not do what was asked of it."""


class Channels:
    """A few connections to one gateway, given out in turn."""

    def __init__(self, target: str, count: int) -> None:
        self._channels = [grpc.aio.insecure_channel(target, options=OPTIONS) for _ in range(count)]
        self._given = 0

    async def ready(self) -> None:
        for channel in self._channels:
            await channel.channel_ready()

    def next(self) -> Any:
        self._given += 1
        return self._channels[self._given % len(self._channels)]

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


def _stub(make: Callable[[Any], Any], channel: Any) -> Any:
    """grpcio's stubs have no types."""
    return make(channel)


class Speech(Protocol):
    """One synthesis session."""

    async def open(self) -> None:
        """Return once text is welcome."""

    async def say(self, order: Order) -> None:
        """Ask for an utterance."""

    async def listen(self, on_audio: Callable[[bytes], None]) -> None:
        """Hand over the audio of an utterance; returns when it is over. Raises `Failed`."""

    async def end(self) -> None:
        """End in good order."""

    async def cut(self) -> None:
        """End at once."""


class GatewaySpeech:
    """A `SynthesizeStream`."""

    def __init__(self, channel: Any) -> None:
        self._stub: Any = _stub(synthesis_service_pb2_grpc.SynthesisServiceStub, channel)
        self._call: Any = None
        self.utterance_id = ""
        self._spoken = 0

    async def open(self) -> None:
        self._call = self._stub.SynthesizeStream()
        settings = v1.SynthesisSettings(voice_id="magnus")
        audio_format = v1.AudioFormat(
            encoding=v1.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=SAMPLE_RATE_TTS_HZ
        )
        start = v1.StartSynthesis(settings=settings, audio_format=audio_format)
        await self._call.write(v1.SynthesizeStreamRequest(start=start))
        while (await self.event()).WhichOneof("event") != "session_started":
            pass

    async def event(self) -> Any:
        """The next thing that the gateway says. Raises `Failed` at the end of the call."""
        response = await self._call.read()
        if response is grpc.aio.EOF:
            raise Failed(f"the session ended: {await self._call.code()} {await self._call.details()}")
        return response

    async def say(self, order: Order) -> None:
        self._spoken += 1
        self.utterance_id = f"u{self._spoken}"
        text = v1.TextInput(text=str(order), utterance_id=self.utterance_id, end_utterance=True)
        await self._call.write(v1.SynthesizeStreamRequest(text=text))

    async def listen(self, on_audio: Callable[[bytes], None]) -> None:
        while True:
            response = await self.event()
            # The commonest first: a chunk must cost this process little.
            if response.HasField("audio"):
                on_audio(response.audio.audio)
                continue
            match response.WhichOneof("event"):
                case "utterance_completed":
                    return
                case "utterance_failed" | "session_ended" | "warning":
                    raise Failed(str(response))

    async def cancel(self) -> None:
        """Barge in."""
        await self._call.write(
            v1.SynthesizeStreamRequest(cancel=v1.CancelUtterance(utterance_id=self.utterance_id))
        )

    async def end(self) -> None:
        await self._call.write(v1.SynthesizeStreamRequest(end_session=v1.EndSession()))
        await self._call.done_writing()
        while await self._call.read() is not grpc.aio.EOF:
            pass
        if (code := await self._call.code()) is not grpc.StatusCode.OK:
            raise Failed(f"the session ended with {code}: {await self._call.details()}")

    async def cut(self) -> None:
        if self._call is not None:
            self._call.cancel()


class DirectSpeech:
    """A WebSocket of the upstream."""

    def __init__(self, url: str) -> None:
        self._url = url + "/waves/v1/tts/live"
        self._socket: ClientConnection | None = None
        self._spoken = 0

    async def open(self) -> None:
        self._socket = await dial(self._url)

    async def say(self, order: Order) -> None:
        assert self._socket is not None
        self._spoken += 1
        message = {
            "text": str(order),
            "continue": False,
            "voice_id": "magnus",
            "model": "lightning_v3.1",
            "sample_rate": SAMPLE_RATE_TTS_HZ,
            "session_id": "direct",
            "request_id": f"u{self._spoken}",
        }
        await self._socket.send(json.dumps(message))

    async def listen(self, on_audio: Callable[[bytes], None]) -> None:
        assert self._socket is not None
        recv, decode, decode_audio = self._socket.recv, msgspec.json.decode, pybase64.b64decode
        while True:
            frame = decode(await recv())
            match frame["status"]:
                case "chunk":
                    on_audio(decode_audio(frame["data"]["audio"], validate=True))
                case "complete":
                    return
                case _:
                    raise Failed(str(frame))

    async def end(self) -> None:
        if self._socket is not None:
            await self._socket.close()

    async def cut(self) -> None:
        if self._socket is not None:
            self._socket.transport.abort()


class Listening(Protocol):
    """One transcription session."""

    async def open(self) -> None:
        """Return once audio is welcome."""

    async def send(self, audio: bytes) -> None:
        """Hand over one chunk."""

    async def read(self, on_word: Callable[[Heard], None]) -> None:
        """Hand over each word that was heard, once, for as long as the session lives. Raises `Failed`."""

    async def cut(self) -> None:
        """End at once."""


class GatewayListening:
    """A `TranscribeStream`."""

    def __init__(self, channel: Any) -> None:
        self._stub: Any = _stub(transcription_service_pb2_grpc.TranscriptionServiceStub, channel)
        self._call: Any = None

    async def open(self) -> None:
        self._call = self._stub.TranscribeStream()
        settings = v1.TranscriptionSettings(language_code="en")
        audio_format = v1.AudioFormat(
            encoding=v1.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=SAMPLE_RATE_STT_HZ
        )
        start = v1.StartTranscription(audio_format=audio_format, settings=settings)
        await self._call.write(v1.TranscribeStreamRequest(start=start))
        while True:
            response = await self._call.read()
            if response is grpc.aio.EOF:
                raise Failed(f"the session ended: {await self._call.code()} {await self._call.details()}")
            if response.HasField("session_started"):
                return

    async def send(self, audio: bytes) -> None:
        await self._call.write(v1.TranscribeStreamRequest(audio=v1.AudioInput(content=audio)))

    async def read(self, on_word: Callable[[Heard], None]) -> None:
        while (response := await self._call.read()) is not grpc.aio.EOF:
            match response.WhichOneof("event"):
                case "transcript":
                    transcript = response.transcript
                    if not transcript.is_final:
                        on_word(Heard.parse(transcript.text.rpartition(" ")[2]))
                case "session_ended" | "warning":
                    raise Failed(str(response))
        raise Failed(f"the session ended: {await self._call.code()} {await self._call.details()}")

    async def end(self) -> None:
        """End in good order."""
        await self.finish()
        await self.read_to_end(lambda word: None)

    async def finish(self) -> None:
        """Say that no more audio comes."""
        await self._call.write(v1.TranscribeStreamRequest(end_session=v1.EndSession()))
        await self._call.done_writing()

    async def read_to_end(self, on_word: Callable[[Heard], None]) -> int:
        """Hand over each word until the session ends in good order; how many transcripts came. Raises `Failed`."""
        transcripts = 0
        while (response := await self._call.read()) is not grpc.aio.EOF:
            if response.HasField("transcript"):
                transcripts += 1
                if not response.transcript.is_final:
                    on_word(Heard.parse(response.transcript.text.rpartition(" ")[2]))
        if (code := await self._call.code()) is not grpc.StatusCode.OK:
            raise Failed(f"the session ended with {code}: {await self._call.details()}")
        return transcripts

    async def cut(self) -> None:
        if self._call is not None:
            self._call.cancel()


class DirectListening:
    """A WebSocket of the upstream."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/waves/v1/stt/live?model=pulse&language=en&sample_rate={SAMPLE_RATE_STT_HZ}"
        self._socket: ClientConnection | None = None

    async def open(self) -> None:
        self._socket = await dial(self._url)

    async def send(self, audio: bytes) -> None:
        assert self._socket is not None
        await self._socket.send(audio)

    async def read(self, on_word: Callable[[Heard], None]) -> None:
        assert self._socket is not None
        async for message in self._socket:
            frame = msgspec.json.decode(message)
            if frame.get("type") != "transcription":
                raise Failed(str(frame))
            if not frame["is_final"]:
                on_word(Heard.parse(frame["transcript"].rpartition(" ")[2]))
        raise Failed("the connection was closed")

    async def cut(self) -> None:
        if self._socket is not None:
            self._socket.transport.abort()


async def dial(url: str) -> ClientConnection:
    """A WebSocket as the gateway has it."""
    return await connect(
        url, compression=None, proxy=None, ping_interval=None, max_size=2**22, max_queue=16, close_timeout=1.0
    )


@contextlib.asynccontextmanager
async def cut_at_end(session: Speech | Listening) -> Any:
    """Cut it, whatever happens in the block."""
    try:
        yield session
    finally:
        await session.cut()
