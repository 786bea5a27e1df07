"""TranscriptionService: TranscribeStream, Recognize."""

from __future__ import annotations

from typing import Any

from wavegate.speech.v1 import transcription_service_pb2 as pb
from wavegate.speech.v1 import transcription_service_pb2_grpc as pb_grpc

from wavegate_server.errors import WavegateError
from wavegate_server.rpc import stream
from wavegate_server.rpc.convert import transcription as convert
from wavegate_server.rpc.gateway import Gateway
from wavegate_server.rpc.trace import current_call
from wavegate_server.session.base import Session
from wavegate_server.session.context import SessionContext
from wavegate_server.session.http import UpstreamHttp
from wavegate_server.session.recognition import recognize
from wavegate_server.session.transcription import TranscriptionSession
from wavegate_server.telemetry import Attribute, logs, names
from wavegate_server.waves.settings import Settings
from wavegate_server.waves.stt import DEFAULTS


class TranscriptionServicer(pb_grpc.TranscriptionServiceServicer):
    """Converts and delegates: streams to `TranscriptionSession`, recordings to `recognize`."""

    def __init__(self, gateway: Gateway, http: UpstreamHttp) -> None:
        self._gateway = gateway
        self._http = http
        self._defaults = {**DEFAULTS, **gateway.transcription_defaults}
        self._kind = stream.Kind("stt", self._open, convert.command, convert.response, self._defaults)

    async def TranscribeStream(self, request_iterator: Any, context: Any) -> None:  # noqa: N802
        await stream.serve(self._gateway, self._kind, context)

    def _open(self, message: pb.StartTranscription, context: SessionContext) -> Session:
        start = convert.start(message, context.defaults)
        return TranscriptionSession(
            context,
            start.audio_format,
            start.settings,
            keep_alive=start.keep_alive,
            keepalive_message=self._gateway.stt_keepalive == "message",
            initial_offset_s=start.initial_offset_s,
        )

    async def Recognize(self, request: pb.RecognizeRequest, context: Any) -> pb.RecognizeResponse:  # noqa: N802
        gateway, call = self._gateway, current_call()
        wanted = convert.recognition(request, self._defaults)
        gateway.registry.admit(call.caller)
        try:
            request_id = wanted.request_id or stream.new_session_id()
            call.span.set({names.SESSION_ID: request_id})
            logs.bind(**{names.LOG_SESSION_ID: request_id})
            await context.send_initial_metadata((("wavegate-trace-id", call.span.trace_id),))
            span = gateway.telemetry.span(
                call.span, f"{names.SPEECH_TO_TEXT} {names.PULSE}", _described(wanted.settings), client=True
            )
            try:
                answer, upstream = await recognize(
                    self._http,
                    wanted.settings,
                    wanted.recording,
                    max_queue_wait_s=gateway.queue_wait_s(context),
                )
                span.set({names.GEN_AI_RESPONSE_ID: upstream.request_id})
            except WavegateError as exc:
                span.fail(exc.reason)
                raise
            finally:
                span.end()
            return convert.recognized(answer, upstream, wanted.settings)
        finally:
            gateway.registry.leave(call.caller)


def _described(settings: Settings) -> dict[str, Attribute]:
    return {
        names.GEN_AI_OPERATION_NAME: names.SPEECH_TO_TEXT,
        names.GEN_AI_PROVIDER_NAME: names.PROVIDER,
        names.GEN_AI_OUTPUT_TYPE: "text",
        names.GEN_AI_REQUEST_MODEL: names.PULSE,
        names.GEN_AI_SPEECH_INPUT_LANGUAGE: settings.get("language_code", ""),
    }
