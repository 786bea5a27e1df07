"""Every setting of the contract, one row a field, from the caller's message to the upstream and back.

A row says what the caller writes, what the upstream reads and where, and what is still and what is no longer
allowed. The first tests make sure that no field of the contract is without its row.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st
from wavegate.speech.v1 import types_pb2 as pb
from wavegate_server.audio import DEFAULT_TRANSCRIPTION_FORMAT
from wavegate_server.rpc.convert import common
from wavegate_server.rpc.convert import synthesis as convert
from wavegate_server.waves import stt, tts
from wavegate_server.waves.settings import (
    MAX_KEYWORDS,
    SYNTHESIS,
    TRANSCRIPTION,
    Keyword,
    Kind,
    Place,
    Schema,
    canonical,
    canonical_stt_model,
    canonical_tts_model,
    check,
    merge,
    query_value,
    unknown_languages,
)
from wavegate_server.waves.tts import Mode, Request, TtsProtocol

NAN, INF = math.nan, math.inf


@dataclass(frozen=True)
class Row:
    """A setting. `written` is the caller's message as proto JSON, `held` what the session keeps of it.

    `key` and `sent` are the upstream's name and value; no key: the gateway's own doing. `wrong` are values that
    are refused, `right` others that are not. `beside` are settings that it needs beside it.
    """

    name: str
    written: Any
    held: Any
    key: str = ""
    sent: Any = None
    right: tuple[Any, ...] = ()
    wrong: tuple[Any, ...] = ()
    beside: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def number(low: float, high: float, step: float) -> dict[str, Any]:
    """The bounds and their neighbours, inside and outside."""
    return {
        "right": (low, low + step, high - step, high),
        "wrong": (low - step, high + step, -high, NAN, INF, -INF),
    }


def whole(low: int, high: int) -> dict[str, Any]:
    return {"right": (low, high), "wrong": (low - 1, high + 1, -(2**31), 2**31 - 1)}


def span(high: float, step: float = 0.001) -> dict[str, Any]:
    return {"right": (0.0, step, high - step, high), "wrong": (-step, high + step, -high, 86_400.0 * 365)}


TAGS: dict[str, Any] = {
    "right": ("en", "en-IN", "zh_Hans", "auto", "xx"),
    "wrong": ("", " ", "e", "en-", "en us", "-en", "e1", "english, please", "en-" + "a" * 33),
}
NAMES: dict[str, Any] = {
    "right": ("x", "a" * 128, "Zoë", "two words"),
    "wrong": ("", "   ", "a" * 129, "a\nb", "a\x00b", "a\x7fb"),
}
V2: dict[str, Any] = {"model": "lightning-v2"}
PULSE_2: dict[str, Any] = {"model": "pulse-2"}

SPEAKING = [
    Row("voice_id", "magnus", "magnus", "voice_id", "magnus", **NAMES),
    Row("model", "lightning-v3.1-pro", "lightning_v3.1_pro", "model", "lightning_v3.1_pro", **NAMES),
    Row("language_code", "hi-IN", "hi-IN", "language", "hi", **TAGS),
    Row("number_language_code", "en-GB", "en-GB", "number_pronunciation_language", "en", **TAGS),
    Row("speed", 1.25, 1.25, "speed", 1.25, **number(0.5, 2.0, 0.001)),
    Row("word_timings", True, True, "word_timestamps", True),
    Row("math_notation", False, False, "math_notation", False),
    Row("max_buffer_delay", "0.250s", 0.25, "max_buffer_delay_ms", 250, **span(5.0)),
    Row("completion_backoff", "1.5s", 1.5, "complete_backoff_ms", 1500, **span(10.0)),
    Row("max_chunk_bytes", 4096, 4096, **whole(1, 2**20)),
    Row("consistency", 0.75, 0.75, "consistency", 0.75, **number(0, 1, 0.001), beside=V2),
    Row("similarity", 0.0, 0.0, "similarity", 0.0, **number(0, 1, 0.001), beside=V2),
    Row("enhancement", 2, 2, "enhancement", 2, **whole(0, 2), beside=V2),
    Row(
        "extra",
        {"seed": 7, "style": {"calm": [True, None]}},
        {"seed": 7, "style": {"calm": [True, None]}},
        "seed",
        7,
        right=({}, {"a b": "c"}, {"n": None}, {"deep": {"er": [1, [2.5]]}}),
        wrong=({"text": "x"}, {"context_id": "x"}, {"": 1}, {"n": NAN}, {"n": {"m": [INF]}}),
    ),
    Row(
        "content_filter",
        "CONTENT_FILTER_REJECT",
        "reject",
        "content_filter",
        {"enabled": True, "action": "reject"},
    ),
]

LISTENING = [
    Row("model", "Pulse_2", "pulse-2", "model", "pulse-2", **NAMES),
    Row("language_code", "hi-IN", "hi-IN", "language", "hi", **TAGS),
    Row("interim_results", False, False),
    Row("word_timings", True, True),
    Row("sentence_timings", True, True, "sentence_timestamps", "true"),
    Row("diarization", False, False, "diarize", "false"),
    Row("voice_activity_events", True, True),
    Row("end_of_utterance_timeout", "0.800s", 0.8, "eou_timeout_ms", "800", **span(60.0)),
    Row("auto_finalize_on_words", False, False, "finalize_on_words", "false"),
    Row("max_words", 30, 30, "max_words", "30", **whole(1, 10_000)),
    Row("formatting", True, True, "format", "true"),
    Row("punctuation", False, False, "punctuate", "false"),
    Row("capitalization", True, True, "capitalize", "true"),
    Row("inverse_text_normalization", True, True, "itn_normalize", "true"),
    Row("redact_pii", True, True, "redact_pii", "true"),
    Row("redact_pci", True, True, "redact_pci", "true"),
    Row(
        "keywords",
        {"keywords": [{"phrase": "Smallest AI", "boost": 2.5}, {"phrase": "Waves"}]},
        (Keyword("Smallest AI", 2.5), Keyword("Waves")),
        "keywords",
        "Smallest AI:2.5,Waves",
        right=({"keywords": []}, {"keywords": [{"phrase": "a b", "boost": 1e-6}]}),
        wrong=(
            {"keywords": [{"phrase": ""}]},
            {"keywords": [{"phrase": " "}]},
            {"keywords": [{"phrase": "a,b"}]},
            {"keywords": [{"phrase": "a:2"}]},
            {"keywords": [{"phrase": "a", "boost": 0.0}]},
            {"keywords": [{"phrase": "a", "boost": -1.0}]},
            {"keywords": [{"phrase": "a", "boost": "NaN"}]},
            {"keywords": [{"phrase": "a", "boost": "Infinity"}]},
            {"keywords": [{"phrase": "a"}] * (MAX_KEYWORDS + 1)},
        ),
    ),
    Row("full_transcript", True, True),
    Row("numerals", "NUMERALS_ALWAYS", "always", "numerals", "true"),
    Row(
        "extra",
        {"beam": 4, "bias": 0.125, "fast": True, "mode": "a b"},
        {"beam": 4, "bias": 0.125, "fast": True, "mode": "a b"},
        "beam",
        "4",
        right=({}, {"x": ""}),
        wrong=(
            {"language": "en"},
            {"sample_rate": 8000},
            {"": 1},
            {"a": None},
            {"a": [1]},
            {"a": {"b": 1}},
            {"a": NAN},
            {"a": -INF},
        ),
    ),
    Row("endpointing", False, False, "endpointing", "false"),
    Row("endpointing_timeout", "0.300s", 0.3, "endpointing_timeout", "300", **span(60.0)),
    Row("emotion_detection", True, True, "emotion_detection", "true", beside=PULSE_2),
    Row("gender_detection", True, True, "gender_detection", "true", beside=PULSE_2),
    Row("vad_threshold", 0.5, 0.5, "vad_threshold", "0.5", **number(0, 1, 0.001)),
    Row("vad_min_speech", "0.120s", 0.12, "vad_min_speech_ms", "120", **span(60.0)),
    Row("no_format_delay", True, True, "no_format_delay", "true"),
]

ROWS = [
    *(pytest.param(SYNTHESIS, r, id=f"speaking-{r}") for r in SPEAKING),
    *(pytest.param(TRANSCRIPTION, r, id=f"listening-{r}") for r in LISTENING),
]
EACH_ROW = pytest.mark.parametrize(("schema", "row"), ROWS)
BOTH_KINDS = pytest.mark.parametrize("schema", [SYNTHESIS, TRANSCRIPTION], ids=["speaking", "listening"])


def message_of(schema: Schema, values: dict[str, Any] | None = None) -> Any:
    """A settings message of the contract; `values` as proto JSON."""
    message = pb.SynthesisSettings() if schema is SYNTHESIS else pb.TranscriptionSettings()
    return ParseDict(values or {}, message)


def held(schema: Schema, values: dict[str, Any]) -> dict[str, Any]:
    """What a session keeps of a message: converted and spelt as the upstream does."""
    return canonical(schema, common.settings_from_proto(schema, message_of(schema, values)))


def sent(schema: Schema, settings: dict[str, Any]) -> dict[str, Any]:
    """What the upstream reads: the fields of a message, or the parameters of the URL."""
    if schema is SYNTHESIS:
        core = TtsProtocol(Mode.CONTINUATIONS, 24_000, "s-1")
        (message,) = core.speak(Request("r-1", settings), "Hello.", last=True, now=0.0)
        found: dict[str, Any] = json.loads(message)
        return found
    parsed = parse_qs(stt.query(settings, DEFAULT_TRANSCRIPTION_FORMAT), keep_blank_values=True)
    assert all(len(v) == 1 for v in parsed.values())
    return {k: v[0] for k, v in parsed.items()}


ALWAYS_SENT = {
    "speaking": {
        "text",
        "continue",
        "context_id",
        "sample_rate",
        "output_format",
        "session_id",
        "request_id",
    },
    "listening": {"model", "language", "sample_rate", "encoding", "word_timestamps", "vad_events"},
}


# -- the tables are whole ----------------------------------------------------------------------------------------


@BOTH_KINDS
def test_every_field_of_the_contract_has_its_row(schema: Schema) -> None:
    contract = [f.name for f in message_of(schema).DESCRIPTOR.fields]
    rows = SPEAKING if schema is SYNTHESIS else LISTENING
    assert [r.name for r in rows] == [f.name for f in schema.fields]
    assert sorted(r.name for r in rows) == sorted(contract)


@BOTH_KINDS
def test_every_name_that_is_sent_is_refused_in_extra(schema: Schema) -> None:
    names = {f.upstream for f in schema.fields if f.upstream and f.kind is not Kind.EXTRA}
    names |= ALWAYS_SENT["speaking" if schema is SYNTHESIS else "listening"]
    assert names <= schema.owned
    for name in schema.owned:
        (violation,) = check(schema, {"extra": {name: 1}}, "settings")
        assert violation.field == f"settings.extra.{name}"


# -- there and back ----------------------------------------------------------------------------------------------


@EACH_ROW
def test_there_and_back(schema: Schema, row: Row) -> None:
    """The caller's value, the session's, the upstream's, and the echo of what is in force."""
    settings = held(schema, {row.name: row.written})
    assert settings == {row.name: row.held}
    table_row = schema.field(row.name)
    assert table_row is not None
    assert table_row.place is (Place.UPSTREAM if row.key else Place.GATEWAY)
    without, with_it = sent(schema, {}), sent(schema, settings)
    if row.key:
        assert with_it[row.key] == row.sent
        assert type(with_it[row.key]) is type(row.sent)
    else:
        assert with_it == without, "the gateway's own doing reaches no upstream"
    echo = common.settings_to_proto(schema, settings)
    assert common.settings_from_proto(schema, echo) == settings
    expected = {row.name: row.written}
    if row.name == "model":
        expected["model"] = row.held
    assert MessageToDict(echo, preserving_proto_field_name=True) == MessageToDict(
        message_of(schema, expected), preserving_proto_field_name=True
    )


@EACH_ROW
def test_only_when_set(schema: Schema, row: Row) -> None:
    """An absent field is not in the session's settings, not upstream and not in the echo."""
    assert row.name not in held(schema, {})
    kind = "speaking" if schema is SYNTHESIS else "listening"
    assert set(sent(schema, {})) == ALWAYS_SENT[kind]
    if row.key and row.key not in ALWAYS_SENT[kind]:
        assert row.key not in sent(schema, {})
    assert not common.settings_to_proto(schema, {}).ListFields()


@BOTH_KINDS
def test_all_at_once(schema: Schema) -> None:
    """No two fields get into each other's way."""
    rows = SPEAKING if schema is SYNTHESIS else LISTENING
    settings = held(schema, {r.name: r.written for r in rows})
    found = sent(schema, settings)
    for row in rows:
        assert settings[row.name] == row.held
        if row.key:
            assert found[row.key] == row.sent


def test_what_is_always_sent_to_speak() -> None:
    """Voice, model, rate, format, ids, completion and buffer times: the defaults give those that nobody set."""
    for mode in Mode:
        settings = {**tts.defaults(mode), "voice_id": "magnus", "model": "lightning_v3.1"}
        core = TtsProtocol(mode, 8000, "s-1")
        (message,) = core.speak(Request("r-1", settings), "Hello.", last=True, now=0.0)
        own = {"context_id"} if mode is Mode.CONTINUATIONS else {"flush"}
        buffer = "max_buffer_delay_ms" if mode is Mode.CONTINUATIONS else "max_buffer_flush_ms"
        assert set(json.loads(message)) == own | {
            "text",
            "continue",
            "voice_id",
            "model",
            "sample_rate",
            "output_format",
            "session_id",
            "request_id",
            "complete_backoff_ms",
            buffer,
        }


def test_what_is_always_asked_for_to_listen() -> None:
    assert sent(TRANSCRIPTION, {}) == {
        "model": "pulse",
        "language": "en",
        "sample_rate": "16000",
        "encoding": "linear16",
        "word_timestamps": "true",
        "vad_events": "true",
    }
    # What the caller sees is one thing, what the gateway needs another.
    quiet = sent(TRANSCRIPTION, {"word_timings": False, "voice_activity_events": False})
    assert (quiet["word_timestamps"], quiet["vad_events"]) == ("true", "true")


# -- ranges ------------------------------------------------------------------------------------------------------


def written(schema: Schema, row: Row, value: Any) -> dict[str, Any]:
    """A value of a row as the session would keep it, through the contract's own message."""
    message = message_of(schema)
    target = getattr(message, row.name)
    if isinstance(target, Duration):
        target.FromNanoseconds(round(value * 1e9))
    elif isinstance(target, Struct):
        target.SetInParent()
        target.update(value)
    elif isinstance(value, dict):
        target.SetInParent()
        ParseDict(value, target)
    else:
        setattr(message, row.name, value)
    settings = common.settings_from_proto(schema, message)
    return canonical(schema, settings)


@EACH_ROW
def test_within_its_range(schema: Schema, row: Row) -> None:
    for value in row.right:
        settings = written(schema, row, value)
        assert check(schema, settings, "start.settings", effective={**settings, **row.beside}) == [], value


@EACH_ROW
def test_out_of_its_range(schema: Schema, row: Row) -> None:
    for value in row.wrong:
        settings = written(schema, row, value)
        violations = check(schema, settings, "start.settings", effective={**settings, **row.beside})
        assert violations, f"{value!r} should have been refused"
        for violation in violations:
            assert violation.field.startswith(f"start.settings.{row.name}")
            assert violation.description


def test_a_violation_says_what_would_be_right() -> None:
    found = check(
        SYNTHESIS, {"speed": 2.5, "max_chunk_bytes": 2**21, "completion_backoff": 11.0}, "synthesis"
    )
    assert [(v.field, v.description) for v in found] == [
        ("synthesis.speed", "must be from 0.5 to 2, got 2.5"),
        ("synthesis.completion_backoff", "must be from 0 to 10 s, got 11 s"),
        ("synthesis.max_chunk_bytes", "must be from 1 to 1048576, got 2097152"),
    ]


def test_violations_inside_a_field_name_the_place() -> None:
    keywords = (Keyword("good"), Keyword("bad,"), Keyword("", -1.0))
    found = check(TRANSCRIPTION, {"keywords": keywords, "extra": {"language": "en"}}, "start.settings")
    assert [v.field for v in found] == [
        "start.settings.keywords.keywords[1].phrase",
        "start.settings.keywords.keywords[2].phrase",
        "start.settings.keywords.keywords[2].boost",
        "start.settings.extra.language",
    ]


@BOTH_KINDS
def test_every_violation_at_once(schema: Schema) -> None:
    rows = [r for r in (SPEAKING if schema is SYNTHESIS else LISTENING) if r.wrong]
    settings: dict[str, Any] = {}
    for row in rows:
        settings |= written(schema, row, row.wrong[0])
    found = check(schema, settings, "start.settings")
    assert {v.field.split(".")[2] for v in found} == {r.name for r in rows}


@pytest.mark.parametrize(
    ("mode_bound_s", "value", "fits"),
    [(5.0, 5.0, True), (5.0, 5.001, False), (1.0, 1.0, True), (1.0, 1.001, False)],
)
def test_the_buffer_delay_is_bounded_by_the_way_text_is_streamed(
    mode_bound_s: float, value: float, fits: bool
) -> None:
    found = check(SYNTHESIS, {"max_buffer_delay": value}, "s", max_buffer_delay_s=mode_bound_s)
    assert (found == []) is fits


@pytest.mark.parametrize("name", ["consistency", "similarity", "enhancement"])
@pytest.mark.parametrize("model", ["lightning_v3.1", "lightning_v3.1_pro", "something", None])
def test_fields_of_one_model_are_refused_with_another(name: str, model: str | None) -> None:
    given: dict[str, Any] = {name: 1}
    effective = given | ({} if model is None else {"model": model})
    (violation,) = check(SYNTHESIS, given, "start.settings", effective=effective)
    assert violation.field == f"start.settings.{name}"
    assert "lightning-v2" in violation.description


def test_a_change_of_model_that_leaves_its_fields_behind_is_refused() -> None:
    before = {"model": "lightning-v2", "consistency": 0.5}
    delta = {"model": "lightning_v3.1"}
    (violation,) = check(SYNTHESIS, delta, "synthesis", effective={**before, **delta})
    assert violation.field == "synthesis.model"
    assert "consistency" in violation.description
    # The same by a reset of the model.
    (violation,) = check(SYNTHESIS, {}, "synthesis", effective={**before, **delta})
    assert violation.field == "synthesis.model"
    # Together with a reset of the field it is fine.
    assert check(SYNTHESIS, delta, "synthesis", effective=delta) == []


@pytest.mark.parametrize("name", ["emotion_detection", "gender_detection"])
def test_detections_are_of_one_model(name: str) -> None:
    assert check(TRANSCRIPTION, {name: True}, "s", effective={name: True, "model": "pulse-2"}) == []
    (violation,) = check(TRANSCRIPTION, {name: True}, "s", effective={name: True, "model": "pulse"})
    assert violation.field == f"s.{name}"


# -- extra -------------------------------------------------------------------------------------------------------


def test_extra_keeps_whole_numbers_whole() -> None:
    settings = held(SYNTHESIS, {"extra": {"seed": 7, "big": 2**52, "half": 0.5, "zero": 0}})
    found = sent(SYNTHESIS, settings)
    assert (found["seed"], found["big"], found["half"], found["zero"]) == (7, 2**52, 0.5, 0)
    assert all(type(found[k]) is int for k in ("seed", "big", "zero"))
    settings = held(TRANSCRIPTION, {"extra": {"seed": 7, "big": 2**52, "odd": 1234567.25, "tiny": 1e-7}})
    found = sent(TRANSCRIPTION, settings)
    assert (found["seed"], found["big"]) == ("7", str(2**52))
    assert (found["odd"], found["tiny"]) == ("1234567.25", "0.0000001")


@pytest.mark.parametrize("schema", [SYNTHESIS, TRANSCRIPTION], ids=["synthesis", "transcription"])
@pytest.mark.parametrize(
    "key",
    [
        "token", "Token", "api_key", "api-key", "apiKey", "APIKey", "API_KEY", "x-api-key", "apikey", "key",
        "authorization", "Authorization", "auth", "access_token", "accessToken", "ACCESSTOKEN", "session_token",
        "client_secret", "secret", "password", "bearer", "jwt", "credentials", "auth_key", "private_key", " token ",
    ],
)  # fmt: skip
def test_credentials_are_no_settings(schema: Schema, key: str) -> None:
    """Those of transcription would stand in a URL, which is logged wherever it passes."""
    (violation,) = check(schema, {"extra": {key: "sk-1234"}}, "settings")
    assert violation.field == f"settings.extra.{key}"
    assert "credential" in violation.description
    assert "sk-1234" not in violation.description


@pytest.mark.parametrize(
    "key",
    [
        "max_tokens",
        "keyword_style",
        "musical_key",
        "author",
        "tokenizer",
        "hotkeys",
        "keys",
        "x_secretary",
        "seed",
    ],
)
def test_what_only_sounds_like_a_credential_passes(key: str) -> None:
    assert check(TRANSCRIPTION, {"extra": {key: 1}}, "settings") == []


@pytest.mark.parametrize("key", ["MODEL", "Language", "sample-rate", " encoding "])
def test_what_the_gateway_owns_it_owns_however_it_is_written(key: str) -> None:
    (violation,) = check(TRANSCRIPTION, {"extra": {key: 1}}, "settings")
    assert "belongs to the gateway" in violation.description


def test_the_full_transcript_is_made_here_and_not_asked_for() -> None:
    field = TRANSCRIPTION.field("full_transcript")
    assert field is not None
    assert field.place is Place.GATEWAY
    assert stt.query({"full_transcript": True}, DEFAULT_TRANSCRIPTION_FORMAT) == stt.query(
        {}, DEFAULT_TRANSCRIPTION_FORMAT
    )
    assert "full_transcript" in TRANSCRIPTION.owned


def test_extra_is_replaced_whole_by_a_delta() -> None:
    assert merge({"extra": {"a": 1}}, {"extra": {"b": 2}}, (), {}) == {"extra": {"b": 2}}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**52), 2**52) | st.floats(-1e6, 1e6) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(min_size=1, max_size=8).filter(str.strip), json_values, max_size=4))
def test_extra_reaches_the_upstream_as_it_was_written(extra: dict[str, Any]) -> None:
    extra = {k: v for k, v in extra.items() if not check(SYNTHESIS, {"extra": {k: 1}}, "")}
    message = pb.SynthesisSettings()
    message.extra.SetInParent()
    message.extra.update(extra)
    settings = common.settings_from_proto(SYNTHESIS, message)
    assert check(SYNTHESIS, settings, "s") == []
    found = sent(SYNTHESIS, settings)
    assert {k: found[k] for k in extra} == extra


# -- keywords, enums ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "sent_as"),
    [
        ((Keyword("a"),), "a"),
        ((Keyword("a"), Keyword("b c")), "a,b c"),
        ((Keyword("a", 2.0), Keyword("b", 0.5)), "a:2,b:0.5"),
        ((Keyword("a", 1e-7), Keyword("b", 1e21)), "a:0.0000001,b:1000000000000000000000"),
        ((Keyword("Müller & Söhne", 1.5),), "Müller & Söhne:1.5"),
    ],
)
def test_keywords_are_joined_by_commas_with_their_boost_behind_a_colon(
    keywords: tuple[Keyword, ...], sent_as: str
) -> None:
    assert sent(TRANSCRIPTION, {"keywords": keywords})["keywords"] == sent_as


def test_no_keywords_differ_from_none_given_but_not_upstream() -> None:
    """An empty parameter would register one empty keyword."""
    settings = held(TRANSCRIPTION, {"keywords": {"keywords": []}})
    assert settings == {"keywords": ()}
    assert "keywords" not in sent(TRANSCRIPTION, settings)
    assert merge({"keywords": (Keyword("a"),)}, settings, (), {}) == {"keywords": ()}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONTENT_FILTER_FLAG", {"enabled": True, "action": "flag"}),
        ("CONTENT_FILTER_REJECT", {"enabled": True, "action": "reject"}),
        ("CONTENT_FILTER_OFF", {"enabled": False}),
    ],
)
def test_content_filters(name: str, value: dict[str, Any]) -> None:
    settings = held(SYNTHESIS, {"content_filter": name})
    assert sent(SYNTHESIS, settings)["content_filter"] == value
    assert common.settings_to_proto(SYNTHESIS, settings).content_filter == pb.ContentFilter.Value(name)


@pytest.mark.parametrize(
    ("name", "value"), [("NUMERALS_AUTO", "auto"), ("NUMERALS_ALWAYS", "true"), ("NUMERALS_NONE", "false")]
)
def test_numerals(name: str, value: str) -> None:
    settings = held(TRANSCRIPTION, {"numerals": name})
    assert sent(TRANSCRIPTION, settings)["numerals"] == value
    assert common.settings_to_proto(TRANSCRIPTION, settings).numerals == pb.Numerals.Value(name)


def test_every_enum_value_has_its_mapping() -> None:
    for enum, field_name, schema in (
        (pb.ContentFilter, "content_filter", SYNTHESIS),
        (pb.Numerals, "numerals", TRANSCRIPTION),
    ):
        for value in enum.values():
            message = message_of(schema)
            setattr(message, field_name, value)
            settings = common.settings_from_proto(schema, message)
            assert (field_name in settings) is (value != 0), "unspecified is as if it were absent"


@pytest.mark.parametrize(
    ("schema", "name"),
    [(SYNTHESIS, "content_filter"), (TRANSCRIPTION, "numerals")],
    ids=["speaking", "listening"],
)
def test_a_value_that_the_enum_does_not_have_is_as_if_it_were_absent(schema: Schema, name: str) -> None:
    message = message_of(schema)
    setattr(message, name, 99)
    assert common.settings_from_proto(schema, message) == {}


# -- models and languages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written_as", "spelt"),
    [
        ("lightning_v3.1", "lightning_v3.1"),
        ("lightning-v3.1", "lightning_v3.1"),
        ("Lightning-v3.1-Pro", "lightning_v3.1_pro"),
        ("lightning_v3.1-pro", "lightning_v3.1_pro"),
        (" lightning-v3.1 ", "lightning_v3.1"),
        ("lightning-v2", "lightning-v2"),
        ("lightning_v2", "lightning-v2"),
        ("LIGHTNING_V2", "lightning-v2"),
        ("my-own_model", "my-own_model"),
    ],
)
def test_speaking_models_are_spelt_as_the_upstream_does(written_as: str, spelt: str) -> None:
    assert canonical_tts_model(written_as) == spelt


@pytest.mark.parametrize(
    ("written_as", "spelt"),
    [
        ("pulse", "pulse"),
        ("Pulse", "pulse"),
        ("pulse_2", "pulse-2"),
        ("pulse-2", "pulse-2"),
        ("PULSE_PRO", "pulse-pro"),
    ],
)
def test_listening_models_are_spelt_as_the_upstream_does(written_as: str, spelt: str) -> None:
    assert canonical_stt_model(written_as) == spelt


def test_a_language_that_the_table_does_not_list_passes_with_a_warning() -> None:
    settings = {"language_code": "tlh", "number_language_code": "en"}
    assert check(SYNTHESIS, settings, "s") == []
    assert sent(SYNTHESIS, settings)["language"] == "tlh"
    assert unknown_languages(SYNTHESIS, settings) == [("language_code", "tlh")]
    assert unknown_languages(SYNTHESIS, {"language_code": "en-AU"}) == []
    # Each direction has a table of its own.
    assert unknown_languages(TRANSCRIPTION, {"language_code": "auto"}) == [("language_code", "auto")]
    assert unknown_languages(TRANSCRIPTION, {"language_code": "multi-asian"}) == []


# -- merging, the URL's values -----------------------------------------------------------------------------------


def test_a_delta_changes_what_it_sets_and_resets_what_it_names() -> None:
    base = {"speed": 1.5, "voice_id": "a", "math_notation": True}
    defaults = {"voice_id": "default"}
    merged = merge(base, {"speed": 0.75}, ["voice_id", "math_notation", "model"], defaults)
    assert merged == {"speed": 0.75, "voice_id": "default"}
    assert base == {"speed": 1.5, "voice_id": "a", "math_notation": True}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (None, ""),
        (3, "3"),
        (0.5, "0.5"),
        (1.0, "1"),
        (1e-7, "0.0000001"),
        ("é", "é"),
    ],
)
def test_values_in_a_url(value: Any, text: str) -> None:
    assert query_value(value) == text


# -- a start message ---------------------------------------------------------------------------------------------


def test_a_start_merges_the_gateways_defaults_and_reports_everything() -> None:
    message = message_of(SYNTHESIS, {"speed": 1.5})
    settings, violations = convert.settings_of(
        message, {"voice_id": "d", "speed": 1.0}, "start.settings", 5.0
    )
    assert settings == {"voice_id": "d", "speed": 1.5}
    assert violations == []
    message = message_of(SYNTHESIS, {"speed": 9, "similarity": 0.5, "max_buffer_delay": "2s"})
    _, violations = convert.settings_of(message, {}, "start.settings", 1.0)
    assert sorted(v.field for v in violations) == [
        "start.settings.max_buffer_delay",
        "start.settings.similarity",
        "start.settings.speed",
        "start.settings.voice_id",
    ]


@pytest.mark.parametrize("voice", [None, "", "  "])
def test_a_missing_voice_is_reported_once(voice: str | None) -> None:
    message = message_of(SYNTHESIS, {} if voice is None else {"voice_id": voice})
    _, violations = convert.settings_of(message, {}, "start.settings", 5.0)
    assert [v.field for v in violations] == ["start.settings.voice_id"]
