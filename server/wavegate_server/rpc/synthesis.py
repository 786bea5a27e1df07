"""SynthesisService: SynthesizeStream, Synthesize, ListVoices."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import Any

from wavegate.speech.v1 import synthesis_service_pb2 as pb
from wavegate.speech.v1 import synthesis_service_pb2_grpc as pb_grpc

from wavegate_server import errors
from wavegate_server.rpc import stream
from wavegate_server.rpc.convert import synthesis as convert
from wavegate_server.rpc.gateway import Gateway
from wavegate_server.rpc.trace import current_call
from wavegate_server.session.base import Session
from wavegate_server.session.catalogue import Catalogue
from wavegate_server.session.context import SessionContext
from wavegate_server.session.http import UpstreamHttp
from wavegate_server.session.log import Entry
from wavegate_server.session.synthesis import SynthesisSession, max_buffer_delay_s
from wavegate_server.session.tracing import SynthesisTrace
from wavegate_server.session.whole_text import delivered, synthesize
from wavegate_server.telemetry import logs, names
from wavegate_server.waves import tts
from wavegate_server.waves.settings import SYNTHESIS

DEFAULT_PAGE = 100
MAX_PAGE = 1000


class SynthesisServicer(pb_grpc.SynthesisServiceServicer):
    """Converts and delegates: streams to `SynthesisSession`, whole texts to `whole_text`, voices to the catalogue."""

    def __init__(self, gateway: Gateway, http: UpstreamHttp, catalogue: Catalogue) -> None:
        self._gateway = gateway
        self._http = http
        self._catalogue = catalogue
        self._mode = gateway.upstreams.template.tts_mode
        self._defaults = {**tts.defaults(self._mode), **gateway.synthesis_defaults}
        self._kind = stream.Kind("tts", self._open, convert.command, convert.response, self._defaults)

    async def SynthesizeStream(self, request_iterator: Any, context: Any) -> None:  # noqa: N802
        await stream.serve(self._gateway, self._kind, context)

    def _open(self, message: pb.StartSynthesis, context: SessionContext) -> Session:
        start = convert.start(message, context.defaults, max_buffer_delay_s(self._mode))
        return SynthesisSession(
            context, start.audio_format, start.settings, max_audio_lead_s=start.max_audio_lead_s
        )

    async def Synthesize(self, request: pb.SynthesizeRequest, context: Any) -> None:  # noqa: N802
        gateway, call = self._gateway, current_call()
        start = convert.whole_text(request, self._defaults, gateway.bounds, max_buffer_delay_s(self._mode))
        active = gateway.registry.admit(call.caller)
        try:
            session_id = stream.new_session_id()
            call.span.set({names.SESSION_ID: session_id})
            logs.bind(**{names.LOG_SESSION_ID: session_id})
            await context.send_initial_metadata(
                (("wavegate-session-id", session_id), ("wavegate-trace-id", call.span.trace_id))
            )
            session = SessionContext(
                session_id=session_id,
                caller=call.caller,
                upstreams=gateway.upstreams,
                dialer=gateway.dialer,
                bounds=replace(gateway.bounds, max_queue_wait_s=gateway.queue_wait_s(context)),
                defaults=self._defaults,
                telemetry=gateway.telemetry,
                span=call.span,
                max_concurrent_sessions=gateway.registry.max_sessions_per_caller,
                active_sessions=active,
            )
            await self._say_all(session, start, request.text, context)
        finally:
            gateway.registry.leave(call.caller)

    async def _say_all(self, session: SessionContext, start: Any, text: str, context: Any) -> None:
        audio_format = start.audio_format
        trace = SynthesisTrace(session, audio_format.encoding.name, audio_format.sample_rate_hz)
        try:
            async with contextlib.aclosing(
                synthesize(session, self._http, start.settings, audio_format, text, start.utterance_id, trace)
            ) as events:
                sequence = 0
                async for event in events:
                    sequence += 1
                    entry = Entry(event, 0, at_ns=time.time_ns())
                    trace.said(event)
                    response, handed_ns = convert.whole_text_response(event), time.time_ns()
                    await context.write(response)
                    delivered(event)
                    trace.handed_over(entry, sequence, handed_ns, time.time_ns())
        except errors.WavegateError as exc:
            trace.failed(exc)
            raise
        finally:
            trace.close()

    async def ListVoices(self, request: pb.ListVoicesRequest, context: Any) -> pb.ListVoicesResponse:  # noqa: N802
        if request.page_size < 0:
            raise errors.InvalidInput.field("page_size", "must not be negative")
        size = min(request.page_size or DEFAULT_PAGE, MAX_PAGE)
        model = SYNTHESIS.canonical_model(request.model) if request.model else ""
        voices = [v for v in await self._catalogue.voices(model) if v.serves("", request.language_code)]
        # The catalogue is sorted by id, so the last id of a page is the place where the next begins.
        if request.page_token:
            voices = [v for v in voices if v.voice_id > convert.voice_of_token(request.page_token)]
        page = voices[:size]
        return pb.ListVoicesResponse(
            voices=[convert.voice(v) for v in page],
            next_page_token=convert.token_of_voice(page[-1]) if len(voices) > size else "",
        )
