"""The speech-to-text socket, seen by a plain WebSocket client."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import numpy as np
import pytest
import soundfile
import websockets
from waves_local import Options, codecs, serve, speak
from waves_local.opus import OggOpusReader
from waves_local.stt_request import LIVE_LANGUAGES

from tests.waves_local.support import AUTH, SttClient, finals, stt, tts, ws_url

RATE_HZ = 8000


async def transcribe(
    audio: bytes, options: Options | None = None, size: int = 1600, **query: Any
) -> list[dict[str, Any]]:
    """All frames for this audio, ended by `close_stream`."""
    async with serve(options=options) as upstream, stt(upstream, **query) as client:
        await client.hear(audio, size)
        return await client.finish()


def kinds(frames: list[dict[str, Any]]) -> list[str]:
    """What came, partials left out."""
    return [
        ("last" if f["is_last"] else "final") if f["type"] == "transcription" else f["type"]
        for f in frames
        if f["type"] != "transcription" or f["is_final"]
    ]


# --- the session ------------------------------------------------------------------------------------------


async def test_closing_the_stream_gives_everything_and_closes() -> None:
    async with serve() as upstream, stt(upstream) as client:
        await client.hear(speak(["alpha", "bravo"], RATE_HZ))
        frames = await client.finish()
        assert client.ws.close_code == 1000
        assert finals(frames) == ["alpha bravo"]
        assert [f["is_last"] for f in frames].count(True) == 1
        assert frames[-1]["is_last"] is True
        assert len({f["session_id"] for f in frames}) == 1
        assert upstream.journal.of("stt")[0].closed_by == "server"


async def test_an_empty_stream_still_gets_its_last_frame() -> None:
    [frame] = await transcribe(b"")
    assert (frame["is_final"], frame["is_last"], frame["transcript"]) == (True, True, "")


async def test_partials_come_before_the_final_and_can_be_switched_off() -> None:
    audio = speak(["one", "two"], RATE_HZ)
    partials = [f["transcript"] for f in await transcribe(audio) if not f["is_final"]]
    assert partials[-1] == "one two"
    assert all("one two".startswith(p) for p in partials)
    assert all(f["is_final"] for f in await transcribe(audio, Options(partials=False)))


async def test_a_slow_listener_reads_no_faster_than_it_hears() -> None:
    """A ping travels behind the audio, so its pong comes when the audio before it is heard."""
    audio = speak(["one"], RATE_HZ)
    loop = asyncio.get_running_loop()
    async with serve(options=Options(listening_speed=2.0)) as upstream, stt(upstream) as client:
        begun_s = loop.time()
        await client.hear(audio)
        await (await client.ws.ping())
        took_s = loop.time() - begun_s
        assert took_s >= (len(audio) - 3200) / 2 / RATE_HZ / 2
        assert finals(await client.finish()) == ["one"]


async def test_a_slow_listener_behind_a_buffer_answers_pings_at_once() -> None:
    audio = speak(["one"], RATE_HZ, lead_s=2.0)
    async with (
        serve(options=Options(listening_speed=2.0, listens_behind=True)) as upstream,
        stt(upstream) as client,
    ):
        told = asyncio.create_task(client.frame())
        await client.hear(audio)
        await (await client.ws.ping())
        assert not told.done(), "it has not come to the word yet"
        assert (await told)["type"] == "transcription"
        assert finals(await client.finish()) == ["one"]


async def test_silence_makes_a_final() -> None:
    audio = speak(["one"], RATE_HZ, tail_s=0.5) + speak(["two"], RATE_HZ)
    frames = await transcribe(audio, eou_timeout_ms=300, vad_events="true")
    assert kinds(frames) == ["speech_started", "speech_ended", "final", "speech_started", "last"]
    final = next(f for f in frames if f.get("is_final"))
    assert (final["transcript"], final["from_finalize"], final["speech_final"]) == ("one", False, True)
    frames = await transcribe(audio, Options(speech_final=False), eou_timeout_ms=300)
    assert not any("speech_final" in f for f in frames)


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({}, 1),  # 800 ms by default
        ({"eou_timeout_ms": 300}, 2),
        ({"endpointing_timeout": 300}, 2),
        ({"endpointing_timeout": 300, "endpointing": "false"}, 1),
        ({"eou_timeout_ms": 700, "endpointing_timeout": 300}, 2),
        ({"eou_timeout_ms": 300, "endpointing": "false"}, 2),
    ],
)
async def test_which_silence_makes_a_final(query: dict[str, Any], count: int) -> None:
    audio = speak(["one"], RATE_HZ, tail_s=0.5) + speak(["two"], RATE_HZ)
    assert len(finals(await transcribe(audio, **query))) == count


async def test_finalize_ends_a_turn_and_keeps_the_socket() -> None:
    async with serve() as upstream, stt(upstream) as client:
        for word in ("first", "second"):
            await client.hear(speak([word], RATE_HZ, lead_s=0.1))
            await client.control("finalize")
            final = (await client.until_final())[-1]
            assert (final["transcript"], final["from_finalize"], final["is_last"]) == (word, True, False)
        assert finals(await client.finish()) == [""]


async def test_an_empty_finalize_is_answered_unless_it_is_not() -> None:
    async with serve() as upstream, stt(upstream) as client:
        await client.control("finalize")
        assert (await client.until_final())[-1]["from_finalize"] is True
    async with serve(options=Options(empty_finalize="silent")) as upstream, stt(upstream) as client:
        await client.control("finalize")
        assert [f["is_last"] for f in await client.finish()] == [True]


async def test_the_last_frame_can_come_apart() -> None:
    frames = await transcribe(speak(["word"], RATE_HZ), Options(last_apart=True))
    assert [(f["transcript"], f["is_last"]) for f in frames if f["is_final"]] == [("word", False), ("", True)]


async def test_many_words_force_finals_that_end_no_turn() -> None:
    said = [f"w{n}" for n in range(7)]
    frames = await transcribe(speak(said, RATE_HZ), max_words=3)
    assert finals(frames) == ["w0 w1 w2", "w3 w4 w5", "w6"]
    assert [f["from_finalize"] or f["is_last"] for f in frames if f["is_final"]] == [False, False, True]
    assert finals(await transcribe(speak(said, RATE_HZ), Options(max_words=5))) == [
        "w0 w1 w2 w3 w4",
        "w5 w6",
    ]
    assert len(finals(await transcribe(speak(said, RATE_HZ), max_words=3, finalize_on_words="false"))) == 1


async def test_no_sample_is_lost_or_heard_twice_over_several_finals() -> None:
    said = [f"w{n}" for n in range(40)]
    audio = speak(said, RATE_HZ, gap_s=0.35)
    frames = await transcribe(audio, size=777, max_words=6, eou_timeout_ms=300, word_timestamps="true")
    words = [w for f in frames if f["is_final"] for w in f["words"]]
    assert [w["word"] for w in words] == said
    step_s = 0.35 + 2 * 0.06
    assert words[10]["start"] == pytest.approx(10 * step_s + 0.0, abs=0.001) or len(said[10]) == 3
    for word in words:
        span = audio[2 * round(word["start"] * RATE_HZ) : 2 * round(word["end"] * RATE_HZ)]
        assert span == speak([word["word"]], RATE_HZ)


# --- keepalive and idling ---------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["pong", "ignored"])
async def test_keepalives_are_answered_or_ignored(policy: Any) -> None:
    async with serve(options=Options(stt_keepalive=policy)) as upstream, stt(upstream) as client:
        await client.control("keepalive")
        frames = await client.finish()
        assert ({"type": "pong"} in frames) == (policy == "pong")


async def test_keepalives_can_be_refused() -> None:
    options = Options(stt_keepalive="refused", stt_error_shape="error")
    async with serve(options=options) as upstream, stt(upstream) as client:
        await client.control("keepalive")
        assert await client.rest() == [{"error": "Unknown message type: keepalive"}]


async def test_an_idle_connection_is_told_so_and_closed() -> None:
    async with serve(options=Options(stt_idle_timeout_s=0.5)) as upstream, stt(upstream) as client:
        [frame] = await client.rest()
        assert (frame["type"], frame["status"]) == ("error", "error")
        assert frame["message"] == "Connection timed out after 0.5 seconds of inactivity"


@pytest.mark.parametrize("message", ["nonsense", '{"type":"dance"}', "[]", "3"])
async def test_an_unknown_message_ends_the_session(message: str) -> None:
    async with serve() as upstream, stt(upstream) as client:
        await client.ws.send(message)
        frames = await client.rest()
        assert [f["type"] for f in frames] == ["error"]
        assert client.ws.close_code in {1003, 1007}


# --- what frames carry ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "present"),
    [
        ("both", {"transcript", "transcription"}),
        ("transcript", {"transcript"}),
        ("transcription", {"transcription"}),
    ],
)
async def test_the_text_stands_in_the_field_that_was_chosen(field: Any, present: set[str]) -> None:
    frames = await transcribe(speak(["word"], RATE_HZ), Options(transcript_field=field))
    for frame in frames:
        assert {"transcript", "transcription"} & frame.keys() == present
    assert {frames[-1][name] for name in present} == {"word"}


async def test_words_utterances_and_full_transcript_come_only_when_asked_for() -> None:
    audio = speak(["Hello", "there.", "Bye."], RATE_HZ, tail_s=0.5) + speak(["More"], RATE_HZ)
    plain = await transcribe(audio, eou_timeout_ms=300)
    assert not any({"words", "utterances", "full_transcript"} & f.keys() for f in plain)
    frames = await transcribe(
        audio,
        eou_timeout_ms=300,
        word_timestamps="true",
        sentence_timestamps="true",
        full_transcript="true",
    )
    first, last = (f for f in frames if f["is_final"])
    assert first["words"][0] == {"word": "Hello", "start": 0.0, "end": 0.3, "confidence": 1.0}
    assert first["utterances"] == [
        {"text": "Hello there.", "start": 0.0, "end": 0.78},
        {"text": "Bye.", "start": 0.9, "end": 1.14},
    ]
    assert (first["full_transcript"], last["full_transcript"]) == (
        "Hello there. Bye.",
        "Hello there. Bye. More",
    )


@pytest.mark.parametrize(("kind", "labels"), [("string", ["0", "1"]), ("integer", [0, 1])])
async def test_speakers(kind: Any, labels: list[Any]) -> None:
    audio = speak(["hi"], RATE_HZ, tail_s=0.1, voice_id="x") + speak(["ho"], RATE_HZ, voice_id="y")
    frames = await transcribe(
        audio, Options(speaker_type=kind), diarize="true", word_timestamps="true", sentence_timestamps="true"
    )
    assert [w["speaker"] for w in frames[-1]["words"]] == labels
    assert [u["speaker"] for u in frames[-1]["utterances"]] == labels
    frames = await transcribe(audio, word_timestamps="true")
    assert not any("speaker" in w for w in frames[-1]["words"])


@pytest.mark.parametrize(
    ("query", "language", "languages"),
    [("en", "en", None), ("hi", "hi", None), ("multi-asian", "en", ["en"]), ("multi", "en", ["en"])],
)
async def test_languages(query: str, language: str, languages: list[str] | None) -> None:
    frame = (await transcribe(speak(["word"], RATE_HZ), language=query))[-1]
    assert (frame["language"], frame.get("languages")) == (language, languages)


async def test_formatting_follows_the_parameters() -> None:
    audio = speak(["Hello,", "World."], RATE_HZ)
    for query, text in [
        ({}, "Hello, World."),
        ({"punctuate": "false"}, "Hello World"),
        ({"capitalize": "false"}, "hello, world."),
        ({"format": "false"}, "hello world"),
        ({"format": "false", "punctuate": "true", "capitalize": "true"}, "hello world"),
    ]:
        assert finals(await transcribe(audio, **query)) == [text]


async def test_spoken_numbers_are_written_in_finals_only() -> None:
    audio = speak("it costs twenty five dollars".split(), RATE_HZ)
    frames = await transcribe(audio, itn_normalize="true", word_timestamps="true")
    assert [f["transcript"] for f in frames if not f["is_final"]][-1] == "it costs twenty five dollars"
    assert frames[-1]["transcript"] == "it costs $25"
    assert [w["word"] for w in frames[-1]["words"]] == ["it", "costs", "$25"]
    assert frames[-1]["words"][-1]["end"] == pytest.approx(len(audio) / 2 / RATE_HZ)
    assert finals(await transcribe(audio, itn_normalize="true", format="false")) == [
        "it costs twenty five dollars"
    ]


async def test_a_number_that_goes_on_is_held_back() -> None:
    audio = speak(["call", "five", "five"], RATE_HZ, tail_s=0.5) + speak(["one", "two", "now"], RATE_HZ)
    held = await transcribe(audio, itn_normalize="true", eou_timeout_ms=300)
    assert finals(held) == ["call", "5512 now"]
    at_once = await transcribe(audio, itn_normalize="true", eou_timeout_ms=300, no_format_delay="true")
    assert finals(at_once) == ["call 55", "12 now"]


async def test_redaction() -> None:
    audio = speak("my name is Alice Miller".split(), RATE_HZ, tail_s=0.5) + speak(
        "call Alice at 5551234567".split(), RATE_HZ
    )
    frames = await transcribe(audio, redact_pii="true", eou_timeout_ms=300)
    assert finals(frames) == [
        "my name is [FIRSTNAME_1] [LASTNAME_1]",
        "call [FIRSTNAME_2] at [PHONENUMBER_1]",
    ]
    assert [f["redacted_entities"] for f in frames if f["is_final"]] == [
        ["[FIRSTNAME_1]", "[LASTNAME_1]"],
        ["[FIRSTNAME_2]", "[PHONENUMBER_1]"],
    ]
    assert "Miller" not in json.dumps(frames)
    assert "Alice" not in json.dumps(frames)


async def test_times_run_on_from_socket_to_socket_if_they_do() -> None:
    audio = speak(["word"], RATE_HZ)  # 0.24 s
    query = {"word_timestamps": "true", "vad_events": "true", "external_session_id": "call-1"}
    for restart, start in [(True, 0.0), (False, 0.24)]:
        async with serve(options=Options(stt_times_restart=restart)) as upstream:
            for _ in range(2):
                async with stt(upstream, **query) as client:
                    await client.hear(audio)
                    frames = await client.finish()
        assert frames[-1]["words"][0]["start"] == pytest.approx(start)
        assert frames[0]["timestamp"] == pytest.approx(start)


async def test_voice_traits_come_with_pulse_2_only() -> None:
    t = np.arange(2 * 16000) / 16000
    hum = (8000 * np.sign(np.sin(2 * np.pi * 220 * t))).astype("<i2").tobytes()
    query = {"emotion_detection": "true", "gender_detection": "true", "sample_rate": 16000}
    final = (await transcribe(hum, model="pulse-2", **query))[-1]
    assert final["gender"] == "female"
    assert sum(final["emotion"].values()) == pytest.approx(1, abs=0.01)
    assert not {"gender", "emotion"} & (await transcribe(hum, **query))[-1].keys()


# --- encodings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [160, 333, 100_000])
@pytest.mark.parametrize("encoding", ["linear16", "linear32", "mulaw", "alaw"])
async def test_encodings(encoding: str, size: int) -> None:
    pcm = speak(["alpha", "bravo"], RATE_HZ, lead_s=0.1)
    encode = {
        "linear16": lambda data: data,
        "linear32": lambda data: (np.frombuffer(data, "<i2").astype("<i4") << 16).tobytes(),
        "mulaw": codecs.mulaw_encode,
        "alaw": codecs.alaw_encode,
    }[encoding]
    frames = await transcribe(encode(pcm), size=size, encoding=encoding, word_timestamps="true")
    assert finals(frames) == ["alpha bravo"]
    assert frames[-1]["words"][0]["start"] == pytest.approx(0.1)


def _ogg(seconds: float) -> bytes:
    rng = np.random.default_rng(5)
    out = io.BytesIO()
    sound = (0.3 * rng.standard_normal(int(48000 * seconds))).clip(-1, 1)
    soundfile.write(out, sound, 48000, format="OGG", subtype="OPUS")
    return out.getvalue()


async def test_opus_is_heard_for_as_long_as_its_packets_say() -> None:
    ogg = _ogg(1.0)
    packets = [p for p in OggOpusReader().add(ogg) if not p.startswith(b"Opus")]
    async with (
        serve() as upstream,
        stt(upstream, encoding="opus", sample_rate=48000, word_timestamps="true") as client,
    ):
        for packet in packets:
            await client.ws.send(packet)
        bare = (await client.finish())[-1]["words"]
    assert bare[-1]["end"] == pytest.approx(0.02 * len(packets), abs=0.03)
    for size in (100, 4096):
        frames = await transcribe(
            ogg, size=size, encoding="ogg_opus", sample_rate=48000, word_timestamps="true"
        )
        heard = [w["word"] for w in frames[-1]["words"]]
        assert len(heard) >= 4  # a quarter of a second each
        assert heard == [w["word"] for w in frames[-1]["words"]]


@pytest.mark.parametrize("encoding", ["opus", "ogg_opus"])
async def test_what_is_no_opus_ends_the_session(encoding: str) -> None:
    async with serve() as upstream, stt(upstream, encoding=encoding, sample_rate=48000) as client:
        await client.ws.send(b"\x03" * 40 if encoding == "ogg_opus" else b"\xff\x3f")
        [error] = await client.rest()
        assert error["message"].startswith("Cannot decode the audio")
        assert client.ws.close_code == 1007


# --- the URL ----------------------------------------------------------------------------------------------


async def refusal(
    query: dict[str, Any], options: Options | None = None, path: str = "/waves/v1/stt/live"
) -> Any:
    async with serve(options=options) as upstream:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(ws_url(upstream, path, query), additional_headers=AUTH)
        [record] = upstream.journal.of("stt")
        assert record.status == refused.value.response.status_code == 400
    return json.loads(refused.value.response.body)


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ({}, "Missing required query param: model."),
        ({"model": "whisper"}, "Invalid query param: model."),
        (
            {"model": "pulse-pro"},
            "Pulse Pro has no streaming transport. Use POST /waves/v1/stt/?model=pulse-pro",
        ),
        ({"language": "tlh"}, "Invalid query param: language"),
        ({"language": "en-US"}, "Invalid query param: language"),
        ({"sample_rate": "11025"}, "Invalid query param: sample_rate"),
        ({"encoding": "flac"}, "Invalid query param: encoding"),
        ({"word_timestamps": "yes"}, "Invalid query param: word_timestamps must be 'true' or 'false'."),
        ({"eou_timeout_ms": "soon"}, "Invalid query param: eou_timeout_ms"),
        ({"max_words": "-3"}, "Invalid query param: max_words"),
        ({"vad_threshold": "1.5"}, "Invalid query param: vad_threshold"),
        ({"vad_threshold": "nan"}, "Invalid query param: vad_threshold"),
        ({"keywords": "a:b:c"}, "Invalid query param: keywords"),
        ({"keywords": ",".join("k" for _ in range(10_001))}, "Invalid query param: keywords at most 10000"),
        ({"external_session_id": "a b"}, "Invalid query param: external_session_id"),
    ],
)
async def test_a_bad_url_is_refused_before_the_upgrade(query: dict[str, Any], complaint: str) -> None:
    if query and "model" not in query:
        query = {"model": "pulse", **query}
    body = await refusal(query)
    assert body["error"].startswith(complaint)
    assert body["request_id"]


async def test_every_bad_parameter_is_named() -> None:
    body = await refusal({"model": "pulse", "sample_rate": "1", "diarize": "maybe", "encoding": "x"})
    assert {d["field"] for d in body["details"]} == {"sample_rate", "diarize", "encoding"}


async def test_unknown_parameters_are_tolerated() -> None:
    audio = speak(["word"], RATE_HZ)
    assert finals(
        await transcribe(audio, numerals="auto", colour="blue", keywords="Blackwell:1,Jensen Huang:2")
    ) == ["word"]


async def test_strictness_has_switches() -> None:
    audio = speak(["word"], RATE_HZ)
    lenient = Options(bad_booleans="false", unknown_languages="accepted")
    assert finals(await transcribe(audio, lenient, redact_pii="names,phones", language="tlh")) == ["word"]
    assert finals(await transcribe(audio, language=...)) == ["word"]
    assert "language" in (await refusal({"model": "pulse"}, Options(language_required=True)))["error"]


CLIENTS_SEND = (
    "bg bn cs da de en es et fi fr gu hi hu it kn lt lv ml mr mt nl or pa pl pt ro ru sk sv ta te uk".split()
)


async def test_every_language_that_clients_send_is_taken() -> None:
    audio = speak(["word"], RATE_HZ)
    for language in [*CLIENTS_SEND, *LIVE_LANGUAGES]:
        assert finals(await transcribe(audio, language=language)) == ["word"], language
    documented = Options(live_languages="documented")
    for language in set(CLIENTS_SEND) - LIVE_LANGUAGES:
        body = await refusal({"model": "pulse", "language": language}, documented)
        assert "language" in body["error"]
    assert len(set(CLIENTS_SEND) - LIVE_LANGUAGES) == 15


async def test_defaults_have_switches() -> None:
    audio = speak(["word"], RATE_HZ)
    plain = (await transcribe(audio, language=...))[-1]
    assert (plain["language"], "words" in plain) == ("en", False)
    other = (
        await transcribe(audio, Options(default_language="hi", default_word_timestamps=True), language=...)
    )[-1]
    assert (other["language"], "words" in other) == ("hi", True)


@pytest.mark.parametrize(("region", "language"), [("in", "ja"), ("us", "ta"), ("us", "multi-south-indic")])
async def test_languages_of_the_other_region(region: Any, language: str) -> None:
    body = await refusal({"model": "pulse", "language": language}, Options(region=region))
    assert body["error"].startswith("LANGUAGE_NOT_ENABLED_IN_REGION")
    assert finals(await transcribe(speak(["word"], RATE_HZ), language=language)) == ["word"]


async def test_pulse_2_closes_on_other_languages() -> None:
    async with serve() as upstream, stt(upstream, model="pulse-2", language="hi") as client:
        [error] = await client.rest()
        assert "'en' only" in error["message"]


async def test_vad_is_an_alias_that_vad_events_overrides() -> None:
    audio = speak(["word"], RATE_HZ)
    for query, expected in [
        ({"vad": "true"}, True),
        ({"vad": "true", "vad_events": "false"}, False),
        ({"vad": "false", "vad_events": "true"}, True),
    ]:
        frames = await transcribe(audio, **query)
        assert any(f["type"] == "speech_started" for f in frames) == expected


@pytest.mark.parametrize("base", ["/waves/v1", "/api/v1"])
async def test_the_old_path_needs_no_model(base: str) -> None:
    async with serve() as upstream, stt(upstream, f"{base}/pulse/get_text", model=...) as client:
        await client.hear(speak(["old"], RATE_HZ))
        assert finals(await client.finish()) == ["old"]


# --- many -------------------------------------------------------------------------------------------------


async def test_many_listen_and_speak_at_once() -> None:
    async def listen(number: int) -> list[str]:
        async with stt(upstream) as client:
            await client.hear(speak([f"n{number}", "end"], RATE_HZ))
            return finals(await client.finish())

    async def say(number: int) -> str:
        async with tts(upstream) as client:
            await client.send(f"Number {number}.")
            return "".join(f["status"][:2] for f in await client.until())

    async with serve() as upstream:
        heard, _ = await asyncio.gather(
            asyncio.gather(*(listen(n) for n in range(100))), asyncio.gather(*(say(n) for n in range(100)))
        )
    assert heard == [[f"n{n} end"] for n in range(100)]


async def test_a_delay_makes_transcripts_late() -> None:
    loop = asyncio.get_running_loop()
    async with serve(options=Options(stt_delay_s=0.3)) as upstream, stt(upstream) as client:
        await client.hear(speak(["word"], RATE_HZ))
        start_s = loop.time()
        await client.finish()
        assert loop.time() - start_s >= 0.3


async def test_a_session_ends_when_its_client_vanishes() -> None:
    async with serve() as upstream:
        ws = await websockets.connect(
            ws_url(upstream, "/waves/v1/stt/live", {"model": "pulse"}), additional_headers=AUTH
        )
        await SttClient(ws).hear(speak(["word"], RATE_HZ))
        ws.transport.abort()
        record = await upstream.journal.wait_for(
            lambda j: next((r for r in j.of("stt") if r.closed_at_s is not None), None)
        )
        assert record.close_code == 1006
        assert upstream.open_connections == 0
