"""Client of the wavegate speech gateway: speech synthesis and transcription over gRPC.

    async with Client() as client, client.synthesize(voice_id="magnus") as session:
        utterance = await session.say("Hello there.")
        async for audio in utterance.audio():
            play(audio)

`Client`, or `AsyncClient`, is for asyncio; `SyncClient`, which is `wavegate.sync.Client`, is the same for programs
without an event loop. Failures are exceptions, see `wavegate.errors`; what a session reports are the classes of
`wavegate.events`.
"""

import wavegate._load_grpc  # noqa: F401 - before anything else loads grpc
from wavegate.audio import RawFormat
from wavegate.client import AsyncClient, Client
from wavegate.control import SessionChange, SettingsStream
from wavegate.errors import (
    AccessDeniedError,
    AudioFileError,
    AudioFileWarning,
    CapacityError,
    ConflictError,
    ConnectionLostError,
    DeadlineError,
    FieldViolation,
    GatewayUnavailableError,
    InvalidRequestError,
    QuotaViolation,
    SessionClosedError,
    SessionNotFoundError,
    UpstreamError,
    WavegateError,
)
from wavegate.events import (
    AudioChunk,
    AudioProgress,
    ConnectionEvent,
    GatewayWarning,
    GoAway,
    SessionEnded,
    SessionInfo,
    SessionMoved,
    SessionResumed,
    SessionStarted,
    SettingsAck,
    SpeechEnded,
    SpeechStarted,
    SynthesisEvent,
    Transcript,
    TranscriptionEvent,
    UtteranceCancelled,
    UtteranceCompleted,
    UtteranceFailed,
    UtteranceStarted,
    Voice,
    WordTimings,
)
from wavegate.once import Recognition, Speech
from wavegate.settings import AudioFormat, Keyword, SynthesisSettings, TranscriptionSettings
from wavegate.sync import Client as SyncClient
from wavegate.synthesis import SynthesisSession, Utterance
from wavegate.traces import TraceSpan
from wavegate.transcription import TranscriptionSession

__all__ = [
    "AccessDeniedError",
    "AsyncClient",
    "AudioChunk",
    "AudioFileError",
    "AudioFileWarning",
    "AudioFormat",
    "AudioProgress",
    "CapacityError",
    "Client",
    "ConflictError",
    "ConnectionEvent",
    "ConnectionLostError",
    "DeadlineError",
    "FieldViolation",
    "GatewayUnavailableError",
    "GatewayWarning",
    "GoAway",
    "InvalidRequestError",
    "Keyword",
    "QuotaViolation",
    "RawFormat",
    "Recognition",
    "SessionChange",
    "SessionClosedError",
    "SessionEnded",
    "SessionInfo",
    "SessionMoved",
    "SessionNotFoundError",
    "SessionResumed",
    "SessionStarted",
    "SettingsAck",
    "SettingsStream",
    "Speech",
    "SpeechEnded",
    "SpeechStarted",
    "SyncClient",
    "SynthesisEvent",
    "SynthesisSession",
    "SynthesisSettings",
    "TraceSpan",
    "Transcript",
    "TranscriptionEvent",
    "TranscriptionSession",
    "TranscriptionSettings",
    "UpstreamError",
    "Utterance",
    "UtteranceCancelled",
    "UtteranceCompleted",
    "UtteranceFailed",
    "UtteranceStarted",
    "Voice",
    "WavegateError",
    "WordTimings",
]
