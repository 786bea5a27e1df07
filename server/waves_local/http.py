"""The endpoints that are no WebSockets: speech over SSE and in one piece, recordings, voices."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import time
import uuid
from collections.abc import Coroutine, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from waves_local import catalog, codecs, frames, transcript, voice_traits
from waves_local.connection import ConnectionGone, damage, reset
from waves_local.engine import HeardWord, Hypothesis, RecognitionRequest, SpokenAudio
from waves_local.faults import Fault, FaultPlan
from waves_local.journal import ConnectionRecord, Journal
from waves_local.limits import RequestSlot
from waves_local.speaking import Chunks, Pace, speech_of
from waves_local.stt_request import (
    SAMPLE_RATES_HZ,
    ParameterError,
    RecordedParameters,
    read_recorded_parameters,
)
from waves_local.tts_request import RequestError, TtsRequest, read_request
from waves_local.upstream import Refusal, Upstream

_log = logging.getLogger(__name__)

_BODY_PIECE_BYTES = 32 * 1024
_RECOGNIZED_AT_ONCE_S = 0.1
_FETCH_TIMEOUT_S = 30


# --- speech -----------------------------------------------------------------------------------------------


async def tts_sse(
    upstream: Upstream, request: web.Request, record: ConnectionRecord, plan: FaultPlan
) -> web.StreamResponse:
    """`POST /waves/v1/tts/live`: speech as server-sent events."""
    return await _sse(upstream, request, record, plan, is_v2=False)


async def tts_sse_v2(
    upstream: Upstream, request: web.Request, record: ConnectionRecord, plan: FaultPlan
) -> web.StreamResponse:
    """`POST …/lightning-v2/stream`."""
    return await _sse(upstream, request, record, plan, is_v2=True)


async def tts_whole(
    upstream: Upstream, request: web.Request, record: ConnectionRecord, plan: FaultPlan
) -> web.StreamResponse:
    """`POST /waves/v1/tts`: speech as one recording."""
    return await _whole(upstream, request, record, plan, is_v2=False)


async def tts_whole_v2(
    upstream: Upstream, request: web.Request, record: ConnectionRecord, plan: FaultPlan
) -> web.StreamResponse:
    """`POST …/lightning-v2/get_speech`."""
    return await _whole(upstream, request, record, plan, is_v2=True)


async def _sse(
    upstream: Upstream, request: web.Request, record: ConnectionRecord, plan: FaultPlan, *, is_v2: bool
) -> web.StreamResponse:
    spoken, slot = await _begin(upstream, request, record, plan, is_v2=is_v2)
    linger_s = upstream.options.slot_linger_s
    try:
        session_id, request_id = frames.new_session_id(), frames.new_request_id()
        response = web.StreamResponse(headers=_headers(upstream, request, spoken, session_id, request_id))
        response.content_type = "text/event-stream"
        response.headers["Cache-Control"] = "no-cache"
        await response.prepare(request)
        body = _Body(response, request, record, upstream.journal, plan)
        envelope = frames.tts_envelope(session_id, request_id, spoken.session_id, spoken.request_id)
        is_old_shape = upstream.options.sse_shape == "websocket"
        encode = codecs.chunk_encoder(spoken.output_format, spoken.sample_rate_hz)
        pace = Pace(upstream.options, spoken.sample_rate_hz)
        chunks = Chunks(pace.chunk_bytes)
        prefix = frames.chunk_prefix(envelope)
        loop = asyncio.get_running_loop()
        pace.start(loop.time())

        async def send(pcm: bytes) -> None:
            await asyncio.sleep(max(0.0, pace.wait_s(loop.time())))
            audio = encode(pcm)
            if is_old_shape:
                await body.send_event(frames.chunk_frame(prefix, audio), len(audio))
            else:
                await body.send_event(frames.sse_chunk(audio), len(audio), event="audio")
            pace.sent(len(pcm), loop.time())

        upstream.journal.spoke(record, spoken.text)
        with contextlib.suppress(ConnectionGone):
            async with speech_of(upstream.engine, spoken, spoken.text) as pieces:
                async for piece in pieces:
                    if isinstance(piece, SpokenAudio):
                        for chunk in chunks.add(piece.pcm):
                            await send(chunk)
            if rest := chunks.rest():
                await send(rest)
            linger_s = 0.0
            last = {**envelope, "status": "complete"} if is_old_shape else {"status": "200", "done": True}
            await body.send_event(frames.dumps(last))
            await response.write_eof()
        return response
    finally:
        slot.free(linger_s)


async def _whole(
    upstream: Upstream, request: web.Request, record: ConnectionRecord, plan: FaultPlan, *, is_v2: bool
) -> web.StreamResponse:
    spoken, slot = await _begin(upstream, request, record, plan, is_v2=is_v2)
    linger_s = upstream.options.slot_linger_s
    try:
        upstream.journal.spoke(record, spoken.text)
        pace = Pace(upstream.options, spoken.sample_rate_hz)
        loop = asyncio.get_running_loop()
        pace.start(loop.time())
        pcm = bytearray()
        async with speech_of(upstream.engine, spoken, spoken.text) as pieces:
            async for piece in pieces:
                if isinstance(piece, SpokenAudio):
                    pcm += piece.pcm
                    pace.sent(len(piece.pcm), loop.time())
        await asyncio.sleep(max(0.0, pace.wait_s(loop.time())))
        encode = codecs.chunk_encoder(spoken.output_format, spoken.sample_rate_hz)
        audio = await asyncio.to_thread(encode, bytes(pcm))
        headers = _headers(upstream, request, spoken, frames.new_session_id(), frames.new_request_id())
        response = web.StreamResponse(headers=headers)
        response.content_type = codecs.CONTENT_TYPES[spoken.output_format]
        response.content_length = len(audio)
        await response.prepare(request)
        body = _Body(response, request, record, upstream.journal, plan)
        with contextlib.suppress(ConnectionGone):
            for start in range(0, len(audio), _BODY_PIECE_BYTES):
                await body.send(audio[start : start + _BODY_PIECE_BYTES])
            linger_s = 0.0
            await response.write_eof()
        return response
    finally:
        slot.free(linger_s)


async def _begin(
    upstream: Upstream, request: web.Request, record: ConnectionRecord, plan: FaultPlan, *, is_v2: bool
) -> tuple[TtsRequest, RequestSlot]:
    """Check the request and take its slot. Raises Refusal."""
    key = upstream.authorize(request, frames.tts_http_error)
    if upstream.engine.cannot_speak:
        raise Refusal(400, frames.tts_http_error("InvalidRequest", upstream.engine.cannot_speak))
    text = await _body_text(upstream, request, record, plan)
    try:
        spoken = read_request(
            frames.loads(text), upstream.options, frozenset(upstream.voices), over_socket=False, is_v2=is_v2
        )
        if not spoken.text.strip():
            raise RequestError("The 'text' field is required.")
    except RequestError as error:
        raise Refusal(400, frames.tts_http_error("InvalidRequest", str(error))) from error
    except ValueError as error:
        raise Refusal(400, frames.tts_http_error("InvalidRequest", "The body is not JSON.")) from error
    slot = upstream.limits.take_request(key)
    if slot is None:
        raise upstream.too_many(frames.tts_http_error("TooManyRequests", upstream.limits.request_refusal()))
    return spoken, slot


async def _body_text(
    upstream: Upstream, request: web.Request, record: ConnectionRecord, plan: FaultPlan
) -> str:
    body = await request.read()
    text = body.decode(errors="replace")
    parsed = None
    with contextlib.suppress(ValueError):
        parsed = frames.loads(text)
    upstream.journal.received(record, text, parsed)
    plan.received()
    return text


def _headers(
    upstream: Upstream, request: web.Request, spoken: TtsRequest, session_id: str, request_id: str
) -> dict[str, str]:
    headers = {
        "X-Session-Id": session_id,
        "X-Request-Id": request_id,
        "X-External-Session-Id": spoken.session_id or "",
        "X-External-Request-Id": spoken.request_id or "",
    }
    if "x-expire-content" in request.headers:
        headers["x-content-expiry"] = upstream.options.content_expiry
    return headers


class _Body:
    """The body of a response, with faults in its way."""

    def __init__(
        self,
        response: web.StreamResponse,
        request: web.Request,
        record: ConnectionRecord,
        journal: Journal,
        plan: FaultPlan,
    ) -> None:
        self._journal = journal
        self._response = response
        self._transport = request.transport
        self._record = record
        self._plan = plan
        self._is_cut = False
        self._errors: list[bytes] = []
        """Scripted error events that the next event takes along."""
        record.status = response.status
        plan.opened(self._strike)

    async def send_event(self, data: bytes, audio_bytes: int = 0, event: str = "") -> None:
        """One server-sent event of JSON. Raises ConnectionGone."""
        payloads = [data]
        for fault in self._plan.frame_faults():
            if fault.do == "slow":
                await asyncio.sleep(fault.delay_s)
            else:
                payloads = [p for p, _ in damage(payloads[0], fault)] + payloads[1:]
        payloads = [*self._errors, *payloads]
        self._errors.clear()
        head = f"event: {event}\n".encode() if event else b""
        await self._write(b"".join(head + b"data: " + p + b"\n\n" for p in payloads), audio_bytes)

    async def send(self, audio: bytes) -> None:
        """A piece of a binary body. Raises ConnectionGone."""
        for fault in self._plan.frame_faults():
            if fault.do == "slow":
                await asyncio.sleep(fault.delay_s)
        await self._write(audio, len(audio))

    async def _write(self, payload: bytes, audio_bytes: int) -> None:
        await self._plan.wait_while("stall", "vanish", unless=lambda: self._is_cut)
        if self._is_cut:
            raise ConnectionGone
        try:
            await self._response.write(payload)
        except (aiohttp.ClientConnectionError, ConnectionError) as error:
            raise ConnectionGone from error
        self._journal.sent(self._record, audio_bytes)
        self._plan.sent(audio_bytes)

    def _strike(self, fault: Fault) -> None:
        if fault.do == "error":
            message = fault.body or "Internal server error"
            self._errors.append(frames.dumps({"status": "error", "message": message}))
        elif fault.do in {"drop", "close"}:
            # A body has no close code: `close` ends the connection in good order, but too early.
            self._is_cut = True
            self._record.closed_by = "fault"
            if fault.do == "drop":
                reset(self._transport)
            elif self._transport is not None:
                self._transport.close()


# --- recordings -------------------------------------------------------------------------------------------


async def stt_recorded(
    upstream: Upstream, request: web.Request, record: ConnectionRecord, plan: FaultPlan
) -> web.StreamResponse:
    """`POST /waves/v1/stt/`: the transcript of a recording."""
    return await _recorded(upstream, request, record, plan, is_old_path=False)


async def stt_recorded_old(
    upstream: Upstream, request: web.Request, record: ConnectionRecord, plan: FaultPlan
) -> web.StreamResponse:
    """`POST …/pulse/get_text`."""
    return await _recorded(upstream, request, record, plan, is_old_path=True)


async def _recorded(
    upstream: Upstream, request: web.Request, record: ConnectionRecord, plan: FaultPlan, *, is_old_path: bool
) -> web.StreamResponse:
    upstream.authorize(request, lambda _, message: frames.stt_http_error(message))
    if upstream.engine.cannot_listen:
        raise Refusal(400, frames.stt_http_error(upstream.engine.cannot_listen))
    try:
        parameters = read_recorded_parameters(request.query, upstream.options, is_old_path=is_old_path)
        if parameters.webhook_url:
            _check_url(upstream, parameters.webhook_url, "webhook_url")
        data = await _recording(upstream, request, record, plan, parameters)
        pcm, rate_hz = await asyncio.to_thread(_decode, data, parameters)
    except ParameterError as error:
        raise Refusal(400, frames.stt_http_error(str(error), error.details)) from error
    except web.HTTPRequestEntityTooLarge as error:
        limit = upstream.options.max_upload_mb
        message = f"File size exceeds maximum limit of {limit}MB."
        raise Refusal(413, frames.stt_http_error(message)) from error
    work = _transcribe(upstream, parameters, pcm, rate_hz, len(data))
    if parameters.webhook_url:
        request_id = str(uuid.uuid4())
        upstream.in_background(_call_webhook(parameters, work, request_id))
        return web.json_response({"status": "processing", "request_id": request_id})
    answer = await work
    if (fault := _damage_of(plan)) is not None:
        return web.Response(body=damage(frames.dumps(answer), fault)[0][0], content_type="application/json")
    return web.Response(body=frames.dumps(answer), content_type="application/json")


def _damage_of(plan: FaultPlan) -> Fault | None:
    # An answer in one piece is one frame; faults of time and connection have no hold on it.
    plan.opened(lambda _: None)
    return next((f for f in plan.frame_faults() if f.do != "slow"), None)


async def _recording(
    upstream: Upstream, request: web.Request, record: ConnectionRecord, plan: FaultPlan, p: RecordedParameters
) -> bytes:
    if request.content_type == "application/json":
        text = await _body_text(upstream, request, record, plan)
        try:
            body = frames.loads(text)
        except ValueError as error:
            raise ParameterError("The body is not JSON.") from error
        url = body.get("url") if isinstance(body, dict) else None
        if not isinstance(url, str):
            raise ParameterError("The body needs a 'url', or send the audio itself.")
        if p.model == "pulse-pro":
            raise ParameterError("Pulse Pro does not support audio by URL: send raw bytes.")
        return await _fetch(upstream, url)
    data = await request.read()
    upstream.journal.received(record, data)
    plan.received(len(data))
    if not data:
        raise ParameterError("The body holds no audio.")
    return data


def _check_url(upstream: Upstream, url: str, name: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ParameterError(f"'{name}' must be an http or https URL.")
    policy = upstream.options.fetch_urls
    if policy == "any" or (policy == "loopback" and _is_loopback(parts.hostname)):
        return
    raise ParameterError(f"'{name}' may not be reached from here (fetch-urls is '{policy}').")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _fetch(upstream: Upstream, url: str) -> bytes:
    _check_url(upstream, url, "url")
    limit_bytes = upstream.options.max_upload_mb * 1024 * 1024
    timeout = aiohttp.ClientTimeout(total=_FETCH_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as client,
            # A redirect could lead anywhere.
            client.get(url, allow_redirects=upstream.options.fetch_urls == "any") as response,
        ):
            if response.status != 200:
                raise ParameterError(f"The URL answered {response.status}.")
            data = await response.content.read(limit_bytes + 1)
            while len(data) <= limit_bytes and not response.content.at_eof():
                data += await response.content.read(limit_bytes + 1 - len(data))
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ParameterError("The URL could not be fetched.") from error
    if len(data) > limit_bytes:
        raise web.HTTPRequestEntityTooLarge(max_size=limit_bytes, actual_size=len(data))
    return data


def _decode(data: bytes, p: RecordedParameters) -> tuple[bytes, int]:
    """PCM and its rate, of a file or of bare samples. Raises ParameterError."""
    try:
        pcm, rate_hz = codecs.read_recording(data)
    except ValueError as error:
        if not p.has_bare_samples:
            raise ParameterError(
                "Unsupported or corrupt audio: send a WAV, FLAC, OGG or MP3 file, or bare samples with "
                "'encoding' and 'sample_rate'."
            ) from error
        pcm, rate_hz = codecs.decoder(p.encoding, p.sample_rate_hz).decode(data), p.sample_rate_hz
    if rate_hz not in SAMPLE_RATES_HZ:
        return codecs.resample(pcm, rate_hz, 16000), 16000
    return pcm, rate_hz


async def _transcribe(
    upstream: Upstream, p: RecordedParameters, pcm: bytes, rate_hz: int, size_bytes: int
) -> dict[str, Any]:
    started_s = time.perf_counter()
    engine = upstream.engine
    stream = await engine.recognizer.open(
        RecognitionRequest(sample_rate_hz=rate_hz, language=p.language, model=p.model)
    )
    style = transcript.Style(redact_pii=p.redact_pii, redact_pci=p.redact_pci)
    writer = transcript.Writer(style, language=p.language, comes_punctuated=engine.punctuates)
    words: list[HeardWord] = []
    try:
        piece = 2 * round(rate_hz * _RECOGNIZED_AT_ONCE_S)
        for start in range(0, len(pcm), piece):
            for event in await stream.accept(pcm[start : start + piece]):
                if isinstance(event, Hypothesis) and event.is_final:
                    words += writer.final(event.words).words
            await asyncio.sleep(0)
        for event in await stream.finalize():
            if isinstance(event, Hypothesis) and event.is_final:
                words += writer.final(event.words).words
    finally:
        await stream.close()
    duration_s = len(pcm) / 2 / rate_hz
    return _answer(p, words, duration_s, time.perf_counter() - started_s, size_bytes, pcm, rate_hz)


def _answer(
    p: RecordedParameters,
    words: Sequence[HeardWord],
    duration_s: float,
    took_s: float,
    size_bytes: int,
    pcm: bytes,
    rate_hz: int,
) -> dict[str, Any]:
    is_pro = p.model == "pulse-pro"
    diarize = p.diarize and not is_pro
    answer: dict[str, Any] = {"status": "success", "transcription": transcript.joined(words)}
    answer["words"] = [_word(w, diarize=diarize) for w in words] if p.word_timestamps else []
    if is_pro:
        answer["language"] = p.language
        answer["metadata"] = {
            "duration": round(duration_s, 4),
            "processing_time_ms": round(took_s * 1000, 2),
            "rtfx": round(duration_s / max(took_s, 1e-6), 2),
            "num_chunks": 1,
        }
        answer["totalBytes"] = size_bytes
        answer["request_id"] = str(uuid.uuid4())
    else:
        answer["utterances"] = (
            [_utterance(s, diarize=diarize) for s in transcript.sentences(words)] if p.word_timestamps else []
        )
        answer["metadata"] = {"duration": round(duration_s, 4), "fileSize": size_bytes}
    traits = voice_traits.estimate(pcm, rate_hz) if p.emotion_detection or p.gender_detection else None
    if traits is not None:
        if p.emotion_detection:
            answer["emotions"] = traits.emotions
        if p.gender_detection and not is_pro:
            answer["gender"] = traits.gender
    return answer


def _word(word: HeardWord, *, diarize: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "word": word.text,
        "start": round(word.start_s, 5),
        "end": round(word.end_s, 5),
        "confidence": round(word.confidence, 4),
    }
    if diarize:
        shown |= {"speaker": word.speaker, "speaker_confidence": 1}
    return shown


def _utterance(words: Sequence[HeardWord], *, diarize: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "start": round(words[0].start_s, 5),
        "end": round(words[-1].end_s, 5),
        "text": transcript.joined(words),
    }
    if diarize:
        shown["speaker"] = words[0].speaker
    return shown


async def _call_webhook(
    p: RecordedParameters, work: Coroutine[Any, Any, dict[str, Any]], request_id: str
) -> None:
    answer = {**await work, "request_id": request_id}
    if p.webhook_extra:
        answer["webhook_extra"] = p.webhook_extra
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_FETCH_TIMEOUT_S)) as client:
            if p.webhook_method == "POST":
                await client.post(p.webhook_url, json=answer)
            else:
                await client.get(p.webhook_url, params={"result": frames.dumps(answer).decode()})
    except (aiohttp.ClientError, TimeoutError) as error:
        _log.warning("the webhook could not be called: %s", type(error).__name__)


# --- voices and the rest ------------------------------------------------------------------------------------


async def voices(
    upstream: Upstream, request: web.Request, record: ConnectionRecord, plan: FaultPlan
) -> web.StreamResponse:
    """`GET /waves/v1/{model}/get_voices`."""
    upstream.authorize(request, frames.tts_http_error)
    model = request.match_info["model"]
    # One catalogue holds the voices of both v3.1 models.
    asked = {"lightning-v3.1": {"lightning_v3.1", "lightning_v3.1_pro"}, "lightning-v2": {"lightning-v2"}}
    if model not in asked:
        raise Refusal(
            400, frames.tts_http_error("InvalidRequest", f"No voice catalogue for model '{model[:64]}'.")
        )
    found = [v for v in upstream.voices.values() if asked[model] & set(v.models)]
    return web.Response(
        body=frames.dumps({"voices": [catalog.as_listed(v) for v in found]}), content_type="application/json"
    )


async def all_voices(
    upstream: Upstream, request: web.Request, record: ConnectionRecord, plan: FaultPlan
) -> web.StreamResponse:
    """`GET /waves/v1/voice/get-all-models`."""
    upstream.authorize(request, frames.tts_http_error)
    listed = [catalog.as_catalogued(v) for v in upstream.voices.values()]
    return web.Response(body=frames.dumps({"voices": listed}), content_type="application/json")


async def health(_: web.Request) -> web.StreamResponse:
    """`GET /waves/v1/health`."""
    return web.json_response({"status": "ok"})
