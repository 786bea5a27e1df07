# Generated from the .proto files by scripts/protoc_gen_python_settings.py. DO NOT EDIT!
"""Settings, with what the contract says of each. Times are seconds (`..._s`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from wavegate.values import ContentFilter, JsonValue, Keyword, Numerals


class SynthesisOptions(TypedDict, total=False):
    """Settings of speech synthesis, as keyword arguments."""

    voice_id: str
    """The voice, by its id in the catalogue (see ListVoices) or of a cloned voice. A session needs one, from
    here or from the gateway's default; with neither, the start is refused with FIELD_INVALID. A voice that
    the upstream does not know fails the utterance with UPSTREAM_REJECTED.
    """
    model: str
    """The model: `lightning_v3.1`, `lightning_v3.1_pro` or `lightning-v2`; hyphens and underscores mean the
    same. Absent: the gateway's default. Other names are passed on; one that the upstream does not know fails
    the utterance with UPSTREAM_REJECTED. Voice and model have to fit each other.
    """
    language_code: str
    """The language that is spoken: BCP-47 (`en`, `hi-IN`) or one of the upstream's own codes (`auto`). A code
    that the gateway does not know is passed on with a warning. Absent: as the upstream decides, which is
    English and Hindi mixed.
    """
    number_language_code: str
    """The language in which numbers, amounts, dates and times are read, if another than `language_code`. Same
    codes. Absent: as `language_code`. Where this one is set and `language_code` is not, the upstream takes it
    for the language of the speech, too.
    """
    speed: float
    """Speaking rate, 0.5 to 2.0, as a factor. Absent: 1.0, the voice's own."""
    word_timings: bool
    """Whether `word_timings` events are sent. Absent: false. Only some voices have timings (see
    `Voice.word_timings_supported`); with the others no such event comes, and nothing fails.
    """
    math_notation: bool
    """Whether operators between digits are read as words ("times", "divided by"). Absent: false."""
    max_buffer_delay_s: float
    """The longest that the upstream may hold text back while it waits for more, so as to speak whole phrases.
    0 to 5 s where the gateway streams text by continuations, 0 to 1 s where it streams by flush; whole
    milliseconds. Absent: the gateway's default. A `flush` or the end of the utterance does not wait for it.
    """
    completion_backoff_s: float
    """How long the upstream waits after the last audio before it says that it is complete. 0 to 10 s, whole
    milliseconds. Absent: the gateway's default, which is short; it delays `utterance_completed`, never audio.
    """
    max_chunk_bytes: int
    """The largest `AudioChunk.audio`, in bytes, 1 to 1048576. What the upstream sends in one piece beyond
    that is cut, between samples, into several chunks; a chunk holds one sample at least. Done by the gateway.
    Absent: as the upstream cuts it.
    """
    consistency: float
    """How steady the delivery is, 0 to 1; lightning-v2 only, refused with another model. Absent: as the
    upstream decides.
    """
    similarity: float
    """How close to the recorded voice, 0 to 1; lightning-v2 only, refused with another model. Absent: as the
    upstream decides.
    """
    enhancement: int
    """How much the audio is polished, 0 to 2, at the cost of latency; lightning-v2 only, refused with another
    model. Absent: as the upstream decides.
    """
    extra: Mapping[str, JsonValue]
    """More parameters, written into every upstream request as they are, for what the upstream learns before
    this contract does. Whole numbers stay whole. A delta replaces all of it. A key that the gateway itself
    writes is refused with FIELD_INVALID, and so is one that names a credential (`token`, `api_key`,
    `authorization`).
    """
    content_filter: ContentFilter
    """What the upstream does with text that its word list matches. Absent or unspecified: as the upstream
    decides.
    """


@dataclass(frozen=True, slots=True)
class SynthesisSettings:
    """Settings in force for speech synthesis; `None` where the upstream's own default holds."""

    voice_id: str | None = None
    """The voice, by its id in the catalogue (see ListVoices) or of a cloned voice. A session needs one, from
    here or from the gateway's default; with neither, the start is refused with FIELD_INVALID. A voice that
    the upstream does not know fails the utterance with UPSTREAM_REJECTED.
    """
    model: str | None = None
    """The model: `lightning_v3.1`, `lightning_v3.1_pro` or `lightning-v2`; hyphens and underscores mean the
    same. Absent: the gateway's default. Other names are passed on; one that the upstream does not know fails
    the utterance with UPSTREAM_REJECTED. Voice and model have to fit each other.
    """
    language_code: str | None = None
    """The language that is spoken: BCP-47 (`en`, `hi-IN`) or one of the upstream's own codes (`auto`). A code
    that the gateway does not know is passed on with a warning. Absent: as the upstream decides, which is
    English and Hindi mixed.
    """
    number_language_code: str | None = None
    """The language in which numbers, amounts, dates and times are read, if another than `language_code`. Same
    codes. Absent: as `language_code`. Where this one is set and `language_code` is not, the upstream takes it
    for the language of the speech, too.
    """
    speed: float | None = None
    """Speaking rate, 0.5 to 2.0, as a factor. Absent: 1.0, the voice's own."""
    word_timings: bool | None = None
    """Whether `word_timings` events are sent. Absent: false. Only some voices have timings (see
    `Voice.word_timings_supported`); with the others no such event comes, and nothing fails.
    """
    math_notation: bool | None = None
    """Whether operators between digits are read as words ("times", "divided by"). Absent: false."""
    max_buffer_delay_s: float | None = None
    """The longest that the upstream may hold text back while it waits for more, so as to speak whole phrases.
    0 to 5 s where the gateway streams text by continuations, 0 to 1 s where it streams by flush; whole
    milliseconds. Absent: the gateway's default. A `flush` or the end of the utterance does not wait for it.
    """
    completion_backoff_s: float | None = None
    """How long the upstream waits after the last audio before it says that it is complete. 0 to 10 s, whole
    milliseconds. Absent: the gateway's default, which is short; it delays `utterance_completed`, never audio.
    """
    max_chunk_bytes: int | None = None
    """The largest `AudioChunk.audio`, in bytes, 1 to 1048576. What the upstream sends in one piece beyond
    that is cut, between samples, into several chunks; a chunk holds one sample at least. Done by the gateway.
    Absent: as the upstream cuts it.
    """
    consistency: float | None = None
    """How steady the delivery is, 0 to 1; lightning-v2 only, refused with another model. Absent: as the
    upstream decides.
    """
    similarity: float | None = None
    """How close to the recorded voice, 0 to 1; lightning-v2 only, refused with another model. Absent: as the
    upstream decides.
    """
    enhancement: int | None = None
    """How much the audio is polished, 0 to 2, at the cost of latency; lightning-v2 only, refused with another
    model. Absent: as the upstream decides.
    """
    extra: Mapping[str, JsonValue] | None = None
    """More parameters, written into every upstream request as they are, for what the upstream learns before
    this contract does. Whole numbers stay whole. A delta replaces all of it. A key that the gateway itself
    writes is refused with FIELD_INVALID, and so is one that names a credential (`token`, `api_key`,
    `authorization`).
    """
    content_filter: ContentFilter | None = None
    """What the upstream does with text that its word list matches. Absent or unspecified: as the upstream
    decides.
    """


class TranscriptionOptions(TypedDict, total=False):
    """Settings of transcription, as keyword arguments."""

    model: str
    """The model: `pulse` or `pulse-2` (English only) on a stream, `pulse` or `pulse-pro` (English only) for a
    recording; hyphens and underscores mean the same. Absent: the gateway's default. A model that the upstream
    refuses fails the call with its reason.
    """
    language_code: str
    """The language that is spoken: BCP-47 (`en-US`) or one of the upstream's own codes, such as those that
    detect a language among several (`north_indic`, `multi-asian`). A code that the gateway does not know is
    passed on with a warning. Absent: the gateway's default. The upstream serves some languages in one region
    only.
    """
    interim_results: bool
    """Whether transcripts are sent while they may still change. Absent: true. Filtered by the gateway, so a
    change never reconnects.
    """
    word_timings: bool
    """Whether transcripts carry `words`. Absent: false. The gateway asks the upstream for them anyway, so a
    change never reconnects.
    """
    sentence_timings: bool
    """Whether transcripts carry `sentences`. Absent: false."""
    diarization: bool
    """Whether speakers are told apart, in `Word.speaker` and `Sentence.speaker`. Absent: false."""
    voice_activity_events: bool
    """Whether `speech_started` and `speech_ended` are sent. Absent: false. The gateway asks the upstream for
    them anyway, so a change never reconnects.
    """
    end_of_utterance_timeout_s: float
    """How much silence ends an utterance, 0 to 60 s; whole milliseconds. Absent: as the upstream decides."""
    auto_finalize_on_words: bool
    """Whether the upstream makes a transcript final when it has grown to `max_words`. Absent: as the upstream
    decides, which is true. A final of that kind is no end of a turn.
    """
    max_words: int
    """How many words a transcript may have before it is made final, 1 to 10000. Absent: as the upstream
    decides.
    """
    formatting: bool
    """Whether transcripts are formatted at all. False turns `punctuation`, `capitalization` and
    `inverse_text_normalization` off, whatever they say. Absent: as the upstream decides, which is true.
    """
    punctuation: bool
    """Whether transcripts have punctuation marks. Absent: as the upstream decides, which is true."""
    capitalization: bool
    """Whether transcripts have capital letters. Absent: as the upstream decides, which is true."""
    inverse_text_normalization: bool
    """Whether spoken numbers, dates, amounts and the like are written as such in finals ("five five five" as
    555). Absent: as the upstream decides, which is false.
    """
    redact_pii: bool
    """Whether names, addresses, phone numbers and the like are replaced by numbered labels. Absent: false.
    The upstream does it for English and Hindi only. The numbers start again with every upstream connection.
    """
    redact_pci: bool
    """Whether card and account numbers are replaced by numbered labels. Absent: false. The same limits as
    with `redact_pii`.
    """
    keywords: Sequence[str | Keyword]
    """Phrases to listen for. Absent: none at the start, unchanged in a delta. Present and empty: none from
    now on.
    """
    full_transcript: bool
    """Whether finals carry `full_text`. Absent: false. Joined by the gateway, so that it spans upstream
    connections.
    """
    numerals: Numerals
    """Whether spoken numbers are written as digits. Absent or unspecified: as the upstream decides."""
    extra: Mapping[str, JsonValue]
    """More parameters for the upstream's URL, as they are; strings, numbers and booleans only. Whole numbers
    stay whole. A delta replaces all of it. A key that the gateway itself writes is refused with
    FIELD_INVALID, and so is one that names a credential (`token`, `api_key`, `authorization`): URLs are
    logged.
    """
    endpointing: bool
    """Whether the upstream makes transcripts final on silence, on its own. Absent: as the upstream decides.
    When false, only `finalize`, `max_words` and the end of the session make finals.
    """
    endpointing_timeout_s: float
    """How much silence `endpointing` waits for, 0 to 60 s; whole milliseconds. Absent: as the upstream
    decides.
    """
    emotion_detection: bool
    """Whether `Transcript.extra` tells the speaker's emotion; pulse-2 only, refused with another model.
    Absent: false.
    """
    gender_detection: bool
    """Whether `Transcript.extra` tells the speaker's gender; pulse-2 only, refused with another model.
    Absent: false.
    """
    vad_threshold: float
    """How sure the upstream has to be that it hears a voice, 0 to 1. Absent: as the upstream decides."""
    vad_min_speech_s: float
    """How long a voice has to last to count as speech, 0 to 60 s; whole milliseconds. Absent: as the upstream
    decides.
    """
    no_format_delay: bool
    """Whether finals come at once, without the pause that better formatting takes. Absent: as the upstream
    decides.
    """


@dataclass(frozen=True, slots=True)
class TranscriptionSettings:
    """Settings in force for transcription; `None` where the upstream's own default holds."""

    model: str | None = None
    """The model: `pulse` or `pulse-2` (English only) on a stream, `pulse` or `pulse-pro` (English only) for a
    recording; hyphens and underscores mean the same. Absent: the gateway's default. A model that the upstream
    refuses fails the call with its reason.
    """
    language_code: str | None = None
    """The language that is spoken: BCP-47 (`en-US`) or one of the upstream's own codes, such as those that
    detect a language among several (`north_indic`, `multi-asian`). A code that the gateway does not know is
    passed on with a warning. Absent: the gateway's default. The upstream serves some languages in one region
    only.
    """
    interim_results: bool | None = None
    """Whether transcripts are sent while they may still change. Absent: true. Filtered by the gateway, so a
    change never reconnects.
    """
    word_timings: bool | None = None
    """Whether transcripts carry `words`. Absent: false. The gateway asks the upstream for them anyway, so a
    change never reconnects.
    """
    sentence_timings: bool | None = None
    """Whether transcripts carry `sentences`. Absent: false."""
    diarization: bool | None = None
    """Whether speakers are told apart, in `Word.speaker` and `Sentence.speaker`. Absent: false."""
    voice_activity_events: bool | None = None
    """Whether `speech_started` and `speech_ended` are sent. Absent: false. The gateway asks the upstream for
    them anyway, so a change never reconnects.
    """
    end_of_utterance_timeout_s: float | None = None
    """How much silence ends an utterance, 0 to 60 s; whole milliseconds. Absent: as the upstream decides."""
    auto_finalize_on_words: bool | None = None
    """Whether the upstream makes a transcript final when it has grown to `max_words`. Absent: as the upstream
    decides, which is true. A final of that kind is no end of a turn.
    """
    max_words: int | None = None
    """How many words a transcript may have before it is made final, 1 to 10000. Absent: as the upstream
    decides.
    """
    formatting: bool | None = None
    """Whether transcripts are formatted at all. False turns `punctuation`, `capitalization` and
    `inverse_text_normalization` off, whatever they say. Absent: as the upstream decides, which is true.
    """
    punctuation: bool | None = None
    """Whether transcripts have punctuation marks. Absent: as the upstream decides, which is true."""
    capitalization: bool | None = None
    """Whether transcripts have capital letters. Absent: as the upstream decides, which is true."""
    inverse_text_normalization: bool | None = None
    """Whether spoken numbers, dates, amounts and the like are written as such in finals ("five five five" as
    555). Absent: as the upstream decides, which is false.
    """
    redact_pii: bool | None = None
    """Whether names, addresses, phone numbers and the like are replaced by numbered labels. Absent: false.
    The upstream does it for English and Hindi only. The numbers start again with every upstream connection.
    """
    redact_pci: bool | None = None
    """Whether card and account numbers are replaced by numbered labels. Absent: false. The same limits as
    with `redact_pii`.
    """
    keywords: Sequence[Keyword] | None = None
    """Phrases to listen for. Absent: none at the start, unchanged in a delta. Present and empty: none from
    now on.
    """
    full_transcript: bool | None = None
    """Whether finals carry `full_text`. Absent: false. Joined by the gateway, so that it spans upstream
    connections.
    """
    numerals: Numerals | None = None
    """Whether spoken numbers are written as digits. Absent or unspecified: as the upstream decides."""
    extra: Mapping[str, JsonValue] | None = None
    """More parameters for the upstream's URL, as they are; strings, numbers and booleans only. Whole numbers
    stay whole. A delta replaces all of it. A key that the gateway itself writes is refused with
    FIELD_INVALID, and so is one that names a credential (`token`, `api_key`, `authorization`): URLs are
    logged.
    """
    endpointing: bool | None = None
    """Whether the upstream makes transcripts final on silence, on its own. Absent: as the upstream decides.
    When false, only `finalize`, `max_words` and the end of the session make finals.
    """
    endpointing_timeout_s: float | None = None
    """How much silence `endpointing` waits for, 0 to 60 s; whole milliseconds. Absent: as the upstream
    decides.
    """
    emotion_detection: bool | None = None
    """Whether `Transcript.extra` tells the speaker's emotion; pulse-2 only, refused with another model.
    Absent: false.
    """
    gender_detection: bool | None = None
    """Whether `Transcript.extra` tells the speaker's gender; pulse-2 only, refused with another model.
    Absent: false.
    """
    vad_threshold: float | None = None
    """How sure the upstream has to be that it hears a voice, 0 to 1. Absent: as the upstream decides."""
    vad_min_speech_s: float | None = None
    """How long a voice has to last to count as speech, 0 to 60 s; whole milliseconds. Absent: as the upstream
    decides.
    """
    no_format_delay: bool | None = None
    """Whether finals come at once, without the pause that better formatting takes. Absent: as the upstream
    decides.
    """


__all__ = [
    "SynthesisOptions",
    "SynthesisSettings",
    "TranscriptionOptions",
    "TranscriptionSettings",
]
