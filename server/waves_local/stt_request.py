"""The parameters of speech-to-text connections and requests: types, ranges and defaults, as documented."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from waves_local.options import Options
from waves_local.tts_request import ID_PATTERN

LIVE_LANGUAGES = frozenset(
    "en hi de es ru it fr nl pt zh yue ja ko gu mr or bn ta te kn ml "
    "north_indic multi-asian multi-south-indic multi".split()
)
CLIENT_LANGUAGES = frozenset("bg cs da et fi hu lt lv mt pa pl ro sk sv uk".split())
"""What clients that work send to the live endpoint, beyond its description. Most of it is in that of recordings."""
RECORDED_LANGUAGES = frozenset(
    "en hi de es ru it fr nl pt uk pl cs sk lv et ro fi sv bg hu da lt mt zh ja ko "
    "multi-eu multi-asian multi-indic multi".split()
)
US_ONLY = frozenset({"zh", "yue", "ja", "ko", "multi-asian"})
INDIA_ONLY = frozenset({"ta", "te", "kn", "ml", "multi-south-indic"})
SAMPLE_RATES_HZ = (8000, 16000, 22050, 24000, 44100, 48000)
ENCODINGS = ("linear16", "linear32", "alaw", "mulaw", "opus", "ogg_opus")
RECORDED_MODELS = ("pulse-pro", "pulse")
MAX_KEYWORDS = 10_000


class ParameterError(Exception):
    """Raised when a connection or request is refused with 400. The message is meant for the client."""

    def __init__(self, message: str, details: list[dict[str, str]] | None = None) -> None:
        super().__init__(message)
        self.details = details or []


@dataclass(frozen=True, slots=True)
class LiveParameters:
    """What the URL of a live STT connection says."""

    model: str
    language: str
    sample_rate_hz: int
    encoding: str
    word_timestamps: bool
    sentence_timestamps: bool
    diarize: bool
    vad_events: bool
    vad_threshold: float | None
    vad_min_speech_ms: int | None
    endpointing: bool
    silence_ms: int
    """The silence that ends an utterance."""
    punctuate: bool
    capitalize: bool
    itn_normalize: bool
    numerals: bool
    no_format_delay: bool
    finalize_on_words: bool
    max_words: int
    redact_pii: bool
    redact_pci: bool
    full_transcript: bool
    keywords: tuple[tuple[str, float], ...]
    emotion_detection: bool
    gender_detection: bool
    external_session_id: str


class _Query:
    """Reads parameters one by one and collects what is wrong. An empty one counts as not given."""

    def __init__(self, query: Mapping[str, str], *, lenient_booleans: bool) -> None:
        self._query = query
        self._lenient = lenient_booleans
        self.wrong: list[dict[str, str]] = []

    def error(self, name: str, message: str) -> None:
        self.wrong.append({"field": name, "message": message})

    def get(self, name: str) -> str:
        return self._query.get(name, "")

    def flag(self, name: str, default: bool, *, also: tuple[str, ...] = ()) -> bool:
        value = self.get(name)
        if not value:
            return default
        if value in {"true", "false"}:
            return value == "true"
        if value not in also and not self._lenient:
            self.error(name, "must be 'true' or 'false'")
        return False

    def integer(self, name: str, low: int, high: int) -> int | None:
        value = self.get(name)
        if not value:
            return None
        if not value.isascii() or not value.isdigit() or not low <= int(value) <= high:
            self.error(name, f"must be an integer between {low} and {high}")
            return None
        return int(value)

    def number(self, name: str, low: float, high: float) -> float | None:
        value = self.get(name)
        if not value:
            return None
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            self.error(name, f"must be a number between {low:g} and {high:g}")
            return None
        return number

    def choice(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        value = self.get(name) or default
        if value not in allowed:
            self.error(name, f"must be one of: {', '.join(allowed)}")
        return value

    def keywords(self) -> tuple[tuple[str, float], ...]:
        found = []
        for entry in filter(None, self.get("keywords").split(",")):
            word, colon, boost = entry.rpartition(":")
            if not colon:
                word, boost = entry, "1"
            try:
                found.append((word.strip(), float(boost)))
            except ValueError:
                self.error("keywords", f"'{entry[:64]}' is not WORD or WORD:INTENSIFIER")
                return ()
        if len(found) > MAX_KEYWORDS:
            self.error("keywords", f"at most {MAX_KEYWORDS} keywords are allowed")
        return tuple(found)

    def raise_if_wrong(self) -> None:
        if self.wrong:
            first = self.wrong[0]
            raise ParameterError(f"Invalid query param: {first['field']} {first['message']}.", self.wrong)


def read_live_parameters(query: Mapping[str, str], options: Options, *, is_old_path: bool) -> LiveParameters:
    """Check the URL of a live connection. Raises ParameterError. Unknown parameters are ignored."""
    model = query.get("model", "")
    if is_old_path:
        model = model or "pulse"
    elif not model:
        raise ParameterError(
            f"Missing required query param: model. Supported values: {' | '.join(options.stt_models)}."
        )
    if model == "pulse-pro":
        raise ParameterError(
            "Pulse Pro has no streaming transport. Use POST /waves/v1/stt/?model=pulse-pro instead."
        )
    if model not in options.stt_models:
        raise ParameterError(
            f"Invalid query param: model. Supported values: {' | '.join(options.stt_models)}."
        )

    read = _Query(query, lenient_booleans=options.bad_booleans == "false")
    language = query.get("language", "")
    if not language and options.language_required:
        read.error("language", "is required")
    language = language or options.default_language
    known = LIVE_LANGUAGES if options.live_languages == "documented" else LIVE_LANGUAGES | CLIENT_LANGUAGES
    if language not in known and options.unknown_languages == "rejected":
        read.error("language", f"must be one of: {', '.join(sorted(known))}")
    not_here = {"in": US_ONLY, "us": INDIA_ONLY}.get(options.region, frozenset())
    if language in not_here:
        raise ParameterError(f"LANGUAGE_NOT_ENABLED_IN_REGION: '{language}' is not served in this region.")

    rate = read.get("sample_rate") or "16000"
    if rate not in {str(r) for r in SAMPLE_RATES_HZ}:
        read.error("sample_rate", f"must be one of: {', '.join(map(str, SAMPLE_RATES_HZ))}")
        rate = "16000"
    external_session_id = read.get("external_session_id")
    if external_session_id and not ID_PATTERN.match(external_session_id):
        read.error("external_session_id", "may hold only letters, digits, '-', '_' and '.', at most 128")

    formats = read.flag("format", True)
    endpointing = read.flag("endpointing", True)
    eou_timeout_ms = read.integer("eou_timeout_ms", 1, 60_000)
    endpointing_timeout_ms = read.integer("endpointing_timeout", 1, 60_000)
    # Two detectors of the real service end utterances: by silence (`endpointing`) and by its decoder
    # (`eou_timeout_ms`). Here one does the work of both: the shorter time that is asked for.
    asked = [ms for ms in (eou_timeout_ms, endpointing_timeout_ms if endpointing else None) if ms is not None]
    vad = read.flag("vad", False)
    parameters = LiveParameters(
        model=model,
        language=language,
        sample_rate_hz=int(rate),
        encoding=read.choice("encoding", ENCODINGS, "linear16"),
        word_timestamps=read.flag("word_timestamps", options.default_word_timestamps),
        sentence_timestamps=read.flag("sentence_timestamps", False),
        diarize=read.flag("diarize", False),
        vad_events=read.flag("vad_events", vad),
        vad_threshold=read.number("vad_threshold", 0, 1),
        vad_min_speech_ms=read.integer("vad_min_speech_ms", 0, 60_000),
        endpointing=endpointing or eou_timeout_ms is not None,
        silence_ms=min(asked, default=800),
        punctuate=read.flag("punctuate", True) and formats,
        capitalize=read.flag("capitalize", True) and formats,
        itn_normalize=read.flag("itn_normalize", False) and formats,
        numerals=read.flag("numerals", False, also=("auto",)) and formats,
        no_format_delay=read.flag("no_format_delay", False),
        finalize_on_words=read.flag("finalize_on_words", True),
        max_words=read.integer("max_words", 1, 100_000) or options.max_words,
        redact_pii=read.flag("redact_pii", False),
        redact_pci=read.flag("redact_pci", False),
        full_transcript=read.flag("full_transcript", False),
        keywords=read.keywords(),
        emotion_detection=read.flag("emotion_detection", False),
        gender_detection=read.flag("gender_detection", False),
        external_session_id=external_session_id,
    )
    read.raise_if_wrong()
    return parameters


@dataclass(frozen=True, slots=True)
class RecordedParameters:
    """What the URL of a pre-recorded transcription says."""

    model: str
    language: str
    encoding: str
    sample_rate_hz: int
    """Of bare samples; a file says its own."""
    word_timestamps: bool
    diarize: bool
    webhook_url: str
    webhook_method: str
    webhook_extra: str
    redact_pii: bool
    redact_pci: bool
    emotion_detection: bool
    gender_detection: bool
    has_bare_samples: bool
    """Whether the URL says how bare samples are to be read."""


def read_recorded_parameters(
    query: Mapping[str, str], options: Options, *, is_old_path: bool
) -> RecordedParameters:
    """Check the URL of a pre-recorded transcription. Raises ParameterError."""
    model = query.get("model", "") or ("pulse" if is_old_path else "")
    supported = "Supported values: pulse | pulse-pro."
    if not model:
        raise ParameterError(f"Missing required query param: model. {supported}")
    if model not in RECORDED_MODELS:
        raise ParameterError(f"Invalid query param: model. {supported}")
    read = _Query(query, lenient_booleans=options.bad_booleans == "false")
    language = query.get("language", "")
    if not language and options.language_required:
        read.error("language", "is required")
    language = language or options.default_language
    if language not in RECORDED_LANGUAGES and options.unknown_languages == "rejected":
        read.error("language", f"must be one of: {', '.join(sorted(RECORDED_LANGUAGES))}")
    webhook_url = read.get("webhook_url")
    if webhook_url and model != "pulse-pro":
        read.error("webhook_url", "is supported by pulse-pro only")
    parameters = RecordedParameters(
        model=model,
        language=language,
        encoding=read.choice("encoding", ENCODINGS[:4], "linear16"),
        sample_rate_hz=read.integer("sample_rate", 1000, 192_000) or 16000,
        word_timestamps=read.flag("word_timestamps", False),
        diarize=read.flag("diarize", False),
        webhook_url=webhook_url,
        webhook_method=read.choice("webhook_method", ("GET", "POST"), "POST"),
        webhook_extra=read.get("webhook_extra"),
        redact_pii=read.flag("redact_pii", False),
        redact_pci=read.flag("redact_pci", False),
        emotion_detection=read.flag("emotion_detection", False),
        gender_detection=read.flag("gender_detection", False),
        has_bare_samples=bool(read.get("encoding") or read.get("sample_rate")),
    )
    read.raise_if_wrong()
    return parameters
