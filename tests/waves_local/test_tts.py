"""The text-to-speech socket, seen by a plain WebSocket client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import websockets
from waves_local import Options, serve
from waves_local.deterministic import heard, voice_tag

from tests.waves_local.support import AUTH, PATIENCE_S, TtsClient, audio_of, statuses, text_of, tts, ws_url

SENTENCES = ["Hello ", "world. ", "How are", " you?"]


async def converse(
    options: Options, *requests: dict[str, Any], until: str = "complete"
) -> list[dict[str, Any]]:
    """Frames up to the first with that status, for these requests on one socket."""
    async with serve(options=options) as upstream, tts(upstream) as client:
        for request in requests:
            await client.send(**request)
        return await client.until(until)


# --- one request ------------------------------------------------------------------------------------------


async def test_one_request_is_spoken_and_completed() -> None:
    frames = await converse(Options(), {"text": "Hello.", "session_id": "s.1", "request_id": "r-1"})
    assert text_of(frames) == "Hello."
    assert statuses(frames) == ["chunk", "complete"]
    ids = [{k: v for k, v in f.items() if k.endswith("_id")} for f in frames]
    assert all(i == ids[0] for i in ids)
    assert ids[0]["external_session_id"] == "s.1"
    assert ids[0]["external_request_id"] == "r-1"
    assert ids[0]["session_id"] != ids[0]["request_id"]


async def test_ids_are_echoed_only_if_given_and_wanted() -> None:
    frames = await converse(Options(), {"text": "x"})
    assert not any(k.startswith("external") for f in frames for k in f)
    frames = await converse(Options(echo_ids=False), {"text": "x", "session_id": "s", "request_id": "r"})
    assert not any(k.startswith("external") for f in frames for k in f)


@pytest.mark.parametrize("rate_hz", [8000, 16000, 24000, 44100])
async def test_voice_speed_and_rate_are_in_the_audio(rate_hz: int) -> None:
    frames = await converse(
        Options(), {"text": "ab", "voice_id": "liam", "sample_rate": rate_hz, "speed": 2.0}
    )
    pieces = heard(audio_of(frames))
    assert [p.tag for p in pieces] == [voice_tag("liam")] * 2
    assert pieces[0].end == round(rate_hz * 0.03)


async def test_the_rate_is_44100_by_default() -> None:
    frames = await converse(Options(), {"text": "ab", "sample_rate": ...})
    assert len(audio_of(frames)) == 2 * 2 * round(44100 * 0.06)


@pytest.mark.parametrize(("size", "sizes"), [(0, {1600}), (999, {999})])
async def test_chunks_have_the_size_that_was_asked_for(size: int, sizes: set[int]) -> None:
    frames = await converse(Options(chunk_bytes=size), {"text": "Several chunks of it."})
    chunks = [len(audio_of([f])) for f in frames[:-1]]
    assert set(chunks[:-1]) == sizes
    assert 0 < chunks[-1] <= max(sizes)
    assert text_of(frames) == "Several chunks of it."


async def test_requests_are_spoken_one_after_another_under_their_own_ids() -> None:
    async with serve() as upstream, tts(upstream) as client:
        for index in range(3):
            await client.send(f"Text {index}.", request_id=f"r{index}")
        for index in range(3):
            frames = await client.until()
            assert text_of(frames) == f"Text {index}."
            assert {f["external_request_id"] for f in frames} == {f"r{index}"}
            assert len({f["request_id"] for f in frames}) == 1


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"text": ...}, "The 'text' field is required."),
        ({"text": 7}, "'text' must be a string."),
        ({"voice_id": ...}, "The 'voice_id' field is required."),
        ({"voice_id": "nobody"}, "Voice not found: nobody"),
        ({"model": "lightning_v9"}, "'model' must be one of: lightning_v3.1, lightning_v3.1_pro."),
        ({"model": "lightning-v3.1"}, "'model' must be one of"),
        ({"language": "tlh"}, "'language' must be one of"),
        ({"number_pronunciation_language": "xx"}, "'number_pronunciation_language' must be one of"),
        ({"speed": 2.1}, "'speed' must be between 0.5 and 2."),
        ({"speed": "fast"}, "'speed' must be a number."),
        ({"speed": True}, "'speed' must be a number."),
        ({"sample_rate": 22050}, "'sample_rate' must be one of: 8000, 16000, 24000, 44100."),
        ({"sample_rate": 8000.0}, "'sample_rate' must be an integer."),
        ({"math_notation": 1}, "'math_notation' must be a boolean."),
        ({"word_timestamps": "yes"}, "'word_timestamps' must be a boolean."),
        ({"continue": "no"}, "'continue' must be a boolean."),
        ({"max_buffer_flush_ms": 1001}, "'max_buffer_flush_ms' must be between 0 and 1000."),
        ({"complete_backoff_ms": 10001}, "'complete_backoff_ms' must be between 0 and 10000."),
        ({"max_buffer_delay_ms": 5001}, "'max_buffer_delay_ms' must be between 0 and 5000."),
        ({"session_id": "a b"}, "'session_id' may hold only"),
        ({"request_id": "r" * 129}, "'request_id' may hold only"),
        ({"context_id": "c/1"}, "'context_id' may hold only"),
        ({"output_format": "flac"}, "'output_format' must be one of"),
        ({"content_filter": True}, "'content_filter' must be an object"),
        ({"content_filter": {"enabled": True, "action": "scold"}}, "'content_filter.action' must be one of"),
        ({"pronunciation_dicts": "d"}, "'pronunciation_dicts' must be a list of strings."),
        ({"cancel_request": True}, "'cancel_request' needs a 'context_id'."),
    ],
)
async def test_a_bad_field_is_answered_and_the_next_request_works(
    fields: dict[str, Any], complaint: str
) -> None:
    async with serve() as upstream, tts(upstream) as client:
        await client.send(**{"text": "No.", "session_id": "sess", **fields})
        error = await client.frame()
        assert error["status"] == "error"
        assert error["message"].startswith(complaint)
        await client.send("Yes.")
        assert text_of(await client.until()) == "Yes."


@pytest.mark.parametrize(
    "message",
    ["not json", '"a string"', "[1]", b"\x00\x01", "1", "[" * 100_000, '{"text":"\\ud83d"}', '{"speed":NaN}'],
    ids=lambda m: repr(m)[:12],
)
async def test_what_is_no_request_is_answered(message: str | bytes) -> None:
    async with serve() as upstream, tts(upstream) as client:
        await client.send_raw(message)
        assert (await client.frame())["status"] == "error"
        await client.send("Yes.")
        assert text_of(await client.until()) == "Yes."


async def test_null_counts_as_not_given() -> None:
    frames = await converse(Options(), {"text": "x", "language": None, "speed": None, "continue": None})
    assert text_of(frames) == "x"


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("message", {"message": "Voice not found: nobody"}),
        ("error", {"error": "Voice not found: nobody"}),
        ("error_object", {"error": {"message": "Voice not found: nobody", "code": "VOICE_NOT_FOUND"}}),
    ],
)
async def test_error_frames_have_the_shape_that_was_chosen(shape: Any, expected: dict[str, Any]) -> None:
    request = {"text": "x", "voice_id": "nobody", "request_id": "r"}
    [error] = await converse(Options(error_shape=shape), request, until="error")
    assert error == {
        "session_id": error["session_id"],
        "external_request_id": "r",
        "status": "error",
        **expected,
    }


async def test_an_error_can_close_the_socket() -> None:
    async with serve(options=Options(error_closes=True, error_close_code=1003)) as upstream:
        async with tts(upstream) as client:
            await client.send("x", voice_id="nobody")
            assert statuses(await client.rest()) == ["error"]
        assert client.ws.close_code == 1003


async def test_strictness_has_switches() -> None:
    frames = await converse(
        Options(unknown_voices="accepted", unknown_languages="accepted", hyphenated_models="accepted"),
        {"text": "x", "voice_id": "nobody", "language": "tlh", "model": "lightning-v3.1-pro"},
    )
    assert text_of(frames) == "x"
    assert text_of(await converse(Options(), {"text": "x", "voice_id": "voice_my-clone"})) == "x"
    assert text_of(await converse(Options(), {"text": "x", "mood": "good"})) == "x"
    [error] = await converse(Options(unknown_fields="rejected"), {"text": "x", "mood": "good"}, until="error")
    assert error["message"] == "Unrecognized field: 'mood'."
    [error] = await converse(Options(max_text_chars=3), {"text": "four"}, until="error")
    assert error["message"] == "'text' may have at most 3 characters."


async def test_the_content_filter_rejects_or_flags() -> None:
    request = {"text": "Damn it.", "content_filter": {"enabled": True, "action": "reject"}}
    [error] = await converse(Options(error_shape="error_object"), request, until="error")
    assert error["error"]["code"] == "CONTENT_FILTER_BLOCKED"
    for content_filter in ({"enabled": True, "action": "flag"}, {"enabled": False, "action": "reject"}):
        frames = await converse(Options(), {**request, "content_filter": content_filter})
        assert text_of(frames) == "Damn it."


# --- the flush way ----------------------------------------------------------------------------------------


async def test_fragments_wait_for_the_flush() -> None:
    async with serve() as upstream, tts(upstream) as client:
        for fragment in SENTENCES:
            await client.send(fragment, continues=True, flush=False)
        await client.silence(0.2)
        await client.send("", continues=False, flush=True)
        frames = await client.until()
        assert text_of(frames) == "".join(SENTENCES)
        assert len({f["request_id"] for f in frames}) == 1
        # The socket is good for another turn.
        await client.send("Again.")
        assert text_of(await client.until()) == "Again."


async def test_a_flush_speaks_and_keeps_the_turn_open() -> None:
    async with serve() as upstream, tts(upstream) as client:
        await client.send("First. ", continues=True, flush=True)
        await client.send("Second.", continues=True, flush=False)
        await client.send("", continues=False, flush=True)
        frames = await client.until()
        assert text_of(frames) == "First. Second."
        assert statuses(frames) == ["chunk", "complete"]  # one for the turn
        assert len({f["request_id"] for f in frames}) == 2  # one for each release


async def test_a_message_that_does_not_continue_ends_the_turn_without_a_flush() -> None:
    frames = await converse(Options(), {"text": "Hello ", "continues": True}, {"text": "world."})
    assert text_of(frames) == "Hello world."


async def test_a_buffer_time_releases_without_a_flush() -> None:
    async with serve() as upstream, tts(upstream) as client:
        await client.send("Some text", continues=True, max_buffer_flush_ms=50)
        assert (await client.frame())["status"] == "chunk"


async def test_enough_text_is_released_before_the_buffer_time() -> None:
    async with serve(options=Options(optimal_chars=10)) as upstream, tts(upstream) as client:
        await client.send("0123456789", continues=True, max_buffer_flush_ms=1000)
        await client.send("rest", continues=False, flush=True, max_buffer_flush_ms=1000)
        frames = await client.until()
        assert text_of(frames) == "0123456789rest"
        assert upstream.journal.of("tts")[0].spoken == ["0123456789", "rest"]


@pytest.mark.parametrize("body", [{"flush": True}, {"flush": True, "continue": True}])
async def test_a_bare_flush_speaks_what_is_buffered(body: dict[str, Any]) -> None:
    async with serve() as upstream, tts(upstream) as client:
        await client.send_raw(body)  # nothing to speak: nothing happens
        await client.send("Buffered.", continues=True)
        await client.send_raw(body)
        assert (await client.frame())["status"] == "chunk"


async def test_text_for_other_settings_is_a_release_of_its_own() -> None:
    frames = await converse(
        Options(),
        {"text": "a", "continues": True, "voice_id": "liam"},
        {"text": "b", "continues": True, "voice_id": "avery"},
        {"text": "", "flush": True, "voice_id": "meher"},
    )
    assert [(p.character, p.tag) for p in heard(audio_of(frames))] == [
        ("a", voice_tag("liam")),
        ("b", voice_tag("avery")),
    ]


# --- continuations ----------------------------------------------------------------------------------------


async def test_a_context_is_spoken_at_sentence_ends() -> None:
    async with serve() as upstream, tts(upstream) as client:
        for fragment in SENTENCES[:3]:
            await client.send(fragment, context_id="c", continues=True)
        frames = []
        while text_of(frames) != "Hello world.":
            frames.append(await client.frame())
        await client.send(SENTENCES[3], context_id="c", continues=True)
        await client.send("", context_id="c", continues=False)
        frames += await client.until()
        assert text_of(frames) == "".join(SENTENCES)
        assert upstream.journal.of("tts")[0].spoken == ["Hello world.", " How are you?"]
        assert len({f["request_id"] for f in frames}) == 2


@pytest.mark.parametrize(
    ("fragments", "releases"),
    [
        (["3", ".", "14 is", " pi."], ["3.14 is pi."]),
        (["Wait...", " what?!", " Yes."], ["Wait...", " what?!", " Yes."]),
        (['He said "no." ', "Then left."], ['He said "no."', " Then left."]),
        (["你好。", "再见。"], ["你好。", "再见。"]),
        (["नमस्ते। ", "फिर"], ["नमस्ते।", " फिर"]),
        (["v1.2 of", " it"], ["v1.2 of it"]),
    ],
)
async def test_sentences_end_where_readers_would_end_them(fragments: list[str], releases: list[str]) -> None:
    async with serve() as upstream, tts(upstream) as client:
        for fragment in fragments:
            await client.send(fragment, context_id="c", continues=True, max_buffer_delay_ms=5000)
        await client.send("", context_id="c")
        assert text_of(await client.until()) == "".join(fragments)
        assert upstream.journal.of("tts")[0].spoken == releases


async def test_text_without_a_sentence_end_waits_for_the_buffer_delay() -> None:
    async with serve() as upstream, tts(upstream) as client:
        await client.send("no end", context_id="c", continues=True, max_buffer_delay_ms=1500)
        await client.silence(0.1)
        assert (await client.frame())["status"] == "chunk"
        assert upstream.journal.of("tts")[0].spoken == ["no end"]


async def test_no_buffer_delay_speaks_each_fragment_at_once() -> None:
    async with serve() as upstream, tts(upstream) as client:
        for fragment in ("a", "b"):
            await client.send(fragment, context_id="c", continues=True, max_buffer_delay_ms=0)
        await client.send("", context_id="c")
        assert text_of(await client.until()) == "ab"
        assert upstream.journal.of("tts")[0].spoken == ["a", "b"]


async def test_a_context_in_one_message() -> None:
    frames = await converse(Options(), {"text": "One. Two.", "context_id": "c", "continues": False})
    assert text_of(frames) == "One. Two."
    assert len({f["request_id"] for f in frames}) == 1


async def test_contexts_do_not_mix() -> None:
    async with serve() as upstream, tts(upstream) as client:
        await client.send("one ", context_id="a", continues=True)
        await client.send("two ", context_id="b", continues=True)
        await client.send("first.", context_id="a", continues=False)
        await client.send("second.", context_id="b", continues=False)
        assert text_of(await client.until()) == "one first."
        assert text_of(await client.until()) == "two second."


async def test_cancelling_stops_the_speech_and_forgets_the_text() -> None:
    async with serve(options=Options(chunk_interval_s=0.01)) as upstream, tts(upstream) as client:
        await client.send("A long sentence that takes a while to be spoken. ", context_id="c", continues=True)
        await client.send("Never said", context_id="c", continues=True)
        await client.frame()
        await client.send_raw({"context_id": "c", "cancel_request": True})
        await client.send("Next.", request_id="next")
        frames = await client.until()
        old = [f for f in frames if "external_request_id" not in f]
        assert text_of(old) != "A long sentence that takes a while to be spoken."
        assert {f["status"] for f in old} <= {"chunk"}
        assert text_of([f for f in frames if "external_request_id" in f]) == "Next."
        assert "Never said" not in " ".join(upstream.journal.of("tts")[0].spoken)


async def test_cancelling_what_is_unknown_does_nothing() -> None:
    async with serve() as upstream, tts(upstream) as client:
        await client.send_raw({"context_id": "c", "cancel_request": True})
        await client.send("x")
        assert statuses(await client.until()) == ["chunk", "complete"]


@pytest.mark.parametrize("answer", ["complete", "cancelled"])
async def test_cancelling_can_be_answered(answer: Any) -> None:
    options = Options(cancel_answer=answer, chunk_interval_s=0.01)
    async with serve(options=options) as upstream, tts(upstream) as client:
        await client.send("A long sentence that takes a while to be spoken.", context_id="c")
        await client.frame()
        await client.send_raw({"context_id": "c", "cancel_request": True})
        assert (await client.until(answer))[-1]["context_id"] == "c"
        await client.silence(0.2)


async def test_cancelling_can_be_ignored() -> None:
    options = Options(cancel="ignored", chunk_interval_s=0.01)
    async with serve(options=options) as upstream, tts(upstream) as client:
        await client.send("Spoken to its end.", context_id="c")
        await client.send_raw({"context_id": "c", "cancel_request": True})
        assert text_of(await client.until()) == "Spoken to its end."


async def test_a_server_without_continuations_ignores_their_fields() -> None:
    async with serve(options=Options(continuations="ignored")) as upstream, tts(upstream) as client:
        await client.send("One. Two. ", context_id="c", continues=True, max_buffer_delay_ms=0)
        await client.silence(0.2)
        await client.send("", context_id="c", continues=False)
        frames = await client.until()
        assert text_of(frames) == "One. Two. "
        await client.send_raw({"context_id": "c", "cancel_request": True})
        assert (await client.frame())["message"] == "The 'text' field is required."


async def test_a_server_without_continuations_can_reject_their_fields() -> None:
    request = {"text": "x", "context_id": "c", "continues": True}
    [error] = await converse(Options(continuations="rejected"), request, until="error")
    assert error["message"] == "Unrecognized field: 'context_id'."


@pytest.mark.parametrize(
    ("policy", "completed", "refused"),
    [
        ("queued", ["first", "second"], []),
        ("rejected", ["first"], ["second"]),
        ("interrupts", ["second"], []),
    ],
)
async def test_text_that_comes_while_another_is_spoken(
    policy: Any, completed: list[str], refused: list[str]
) -> None:
    options = Options(text_while_speaking=policy, chunk_interval_s=0.02)
    text = "A text that takes its time to be spoken."

    def ids(frames: list[dict[str, Any]], status: str) -> list[str]:
        return [f["external_request_id"] for f in frames if f["status"] == status]

    async with serve(options=options) as upstream, tts(upstream) as client:
        await client.send(text, request_id="first")
        frames = [await client.frame()]
        await client.send("Two. ", context_id="c", continues=True, request_id="second")
        await client.send("", context_id="c", request_id="second")
        while ids(frames, "complete") != completed or ids(frames, "error") != refused:
            frames.append(await client.frame())
        await client.silence(0.1)
    first = text_of([f for f in frames if f["external_request_id"] == "first"])
    assert (first == text) == ("first" in completed)
    assert text_of([f for f in frames if f["external_request_id"] == "second"]).startswith(
        "Two." if "second" in completed else ""
    )


# --- blanks and empty turns -------------------------------------------------------------------------------


async def test_blank_keepalives_are_silent() -> None:
    async with serve() as upstream, tts(upstream) as client:
        await client.send(" ")
        await client.silence(0.1)
        await client.send("Hello ", context_id="c", continues=True)
        await client.send(" ")
        await client.send("world.", context_id="c")
        assert text_of(await client.until()) == "Hello world."


@pytest.mark.parametrize(("policy", "first"), [("spoken", "chunk"), ("rejected", "error")])
async def test_blank_keepalives_can_be_spoken_or_rejected(policy: Any, first: str) -> None:
    assert (await converse(Options(blank_text=policy), {"text": " "}, until=first))[0]["status"] == first


async def test_blanks_inside_a_text_are_spoken() -> None:
    frames = await converse(
        Options(), *({"text": t, "context_id": "c", "continues": True} for t in ["a", " ", " ", "b"]),
        {"text": "", "context_id": "c"},
    )  # fmt: skip
    assert text_of(frames) == "a  b"


@pytest.mark.parametrize("context", [{}, {"context_id": "c"}])
async def test_an_empty_turn_gets_no_complete_unless_wanted(context: dict[str, Any]) -> None:
    async with serve() as upstream, tts(upstream) as client:
        await client.send("", **context)
        await client.silence(0.1)
    async with serve(options=Options(empty_turn_complete=True)) as upstream, tts(upstream) as client:
        await client.send("", **context)
        assert statuses(await client.until()) == ["complete"]


# --- `complete` -------------------------------------------------------------------------------------------

TWO_RELEASES = (
    {"text": "One. ", "context_id": "c", "continues": True, "request_id": "r1"},
    {"text": "Two.", "context_id": "c", "continues": True, "request_id": "r2"},
    {"text": "", "context_id": "c", "continues": False, "request_id": "r3"},
)


@pytest.mark.parametrize(
    ("per", "expected"),
    [
        ("turn", ["chunk", "complete"]),
        ("release", ["chunk", "complete", "chunk", "complete"]),
        ("request", ["chunk", "chunk", "complete", "complete"]),
        ("none", ["chunk"]),
    ],
)
async def test_how_many_completes_come(per: Any, expected: list[str]) -> None:
    async with serve(options=Options(complete_per=per)) as upstream, tts(upstream) as client:
        if per == "request":
            # Two messages with text, spoken in one release.
            for request in TWO_RELEASES:
                await client.send(**{**request, "context_id": ...})
            expected = ["chunk", "complete", "complete"]
        else:
            for request in TWO_RELEASES:
                await client.send(**request)
        frames = []
        while statuses(frames) != expected or text_of(frames) != "One. Two.":
            frames.append(await client.frame())
        await client.silence(0.1)
        if per == "request":
            done = [f["external_request_id"] for f in frames if f["status"] == "complete"]
            assert done == ["r1", "r2"]


async def test_complete_can_close_the_socket() -> None:
    async with serve(options=Options(complete_closes=True)) as upstream:
        async with tts(upstream) as client:
            await client.send("One.")
            frames = await client.rest()
            assert text_of(frames) == "One."
            assert statuses(frames) == ["chunk", "complete"]
        assert client.ws.close_code == 1000
        assert upstream.journal.of("tts")[0].closed_by == "server"


async def test_complete_can_have_extra_fields() -> None:
    frames = await converse(Options(complete_extra=True), {"text": "x"})
    assert frames[-1]["done"] is True
    assert frames[-1]["message"]


async def test_complete_is_late_by_the_backoff() -> None:
    async with serve() as upstream, tts(upstream) as client:
        await client.send("x", complete_backoff_ms=1500)
        assert (await client.frame())["status"] == "chunk"
        await client.silence(0.1)
        assert (await client.frame())["status"] == "complete"


async def test_complete_can_be_later_than_asked_for() -> None:
    async with serve(options=Options(complete_late_s=1.5)) as upstream, tts(upstream) as client:
        await client.send("x", complete_backoff_ms=0)
        assert (await client.frame())["status"] == "chunk"
        await client.silence(0.1)
        assert (await client.frame())["status"] == "complete"


async def test_complete_is_four_seconds_late_by_default() -> None:
    # The default is shortened here; that it is used is what counts, and that it is 4 s is in the options.
    assert Options().default_complete_backoff_ms == 4000
    async with serve(options=Options(default_complete_backoff_ms=1500)) as upstream, tts(upstream) as client:
        await client.send("x", complete_backoff_ms=...)
        assert (await client.frame())["status"] == "chunk"
        await client.silence(0.1)
        assert (await client.frame())["status"] == "complete"


@pytest.mark.parametrize(
    ("overtaken", "expected"),
    [
        ("prompt", ["first", "first complete", "second", "second complete"]),
        ("merge", ["first", "second", "second complete"]),
        ("late", ["first", "second", "second complete", "first complete"]),
    ],
)
async def test_what_becomes_of_a_complete_that_new_text_overtakes(
    overtaken: Any, expected: list[str]
) -> None:
    async with serve(options=Options(complete_overtaken=overtaken)) as upstream, tts(upstream) as client:
        await client.send("1", request_id="first", complete_backoff_ms=1500)
        story = [(await client.frame())["external_request_id"]]
        await client.send("2", request_id="second")
        while len(story) < len(expected):
            frame = await client.frame()
            complete = " complete" if frame["status"] == "complete" else ""
            story.append(frame["external_request_id"] + complete)
        assert story == expected


# --- word timings -----------------------------------------------------------------------------------------


async def test_words_are_timed_within_each_request() -> None:
    requests = [{**r, "word_timestamps": True} for r in TWO_RELEASES]
    frames = await converse(Options(), *requests)
    words = [f["data"] for f in frames if f["status"] == "word_timestamp"]
    assert words == [
        {"id": 0, "word": "One.", "start": 0.0, "end": 0.24},
        {"id": 0, "word": "Two.", "start": 0.06, "end": 0.3},
    ]


async def test_word_times_can_run_through_the_turn() -> None:
    requests = [{**r, "word_timestamps": True} for r in TWO_RELEASES]
    frames = await converse(Options(word_times_restart=False), *requests)
    words = [f["data"] for f in frames if f["status"] == "word_timestamp"]
    assert [(w["id"], w["start"]) for w in words] == [(0, 0.0), (1, 0.3)]


@pytest.mark.parametrize(
    ("word_timings", "asked", "voice", "count"),
    [
        ("by_voice", True, "meher", 2),
        ("by_voice", True, "magnus", 0),
        ("by_voice", False, "meher", 0),
        ("always", True, "magnus", 2),
        ("never", True, "meher", 0),
    ],
)
async def test_only_some_voices_time_words(word_timings: Any, asked: bool, voice: str, count: int) -> None:
    frames = await converse(
        Options(word_timings=word_timings), {"text": "Two words", "voice_id": voice, "word_timestamps": asked}
    )
    assert sum(f["status"] == "word_timestamp" for f in frames) == count
    assert text_of(frames) == "Two words"


# --- pace -------------------------------------------------------------------------------------------------


async def test_audio_comes_no_faster_than_it_is_said_to_be_made() -> None:
    loop = asyncio.get_running_loop()
    async with (
        serve(options=Options(generation_speed=5, first_audio_delay_s=0.1)) as upstream,
        tts(upstream) as client,
    ):
        start_s = loop.time()
        await client.send("0123456789")  # 0.6 s of audio
        await client.until()
        assert loop.time() - start_s >= 0.1 + (0.6 - 0.1) / 5


# --- time -------------------------------------------------------------------------------------------------


async def test_an_idle_connection_is_told_so_and_closed() -> None:
    async with serve() as upstream, tts(upstream, query={"timeout": 1}) as client:
        [frame] = await client.rest()
        assert frame == {"status": "error", "message": "Connection timed out after 1 seconds of inactivity"}
        assert client.ws.close_code == 1000


async def test_messages_keep_a_connection_alive_and_pings_do_not_by_default() -> None:
    async with serve(options=Options(idle_timeout_s=1.5)) as upstream, tts(upstream) as client:
        for _ in range(6):
            await asyncio.sleep(0.3)
            await client.send(" ")

        async def ping_for_ever() -> None:
            while True:
                await (await client.ws.ping())
                await asyncio.sleep(0.1)

        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(ping_for_ever(), PATIENCE_S)


async def test_pings_can_keep_a_connection_alive() -> None:
    options = Options(idle_timeout_s=1.5, ping_resets_idle=True)
    async with serve(options=options) as upstream, tts(upstream) as client:
        for _ in range(6):
            await asyncio.sleep(0.3)
            await (await client.ws.ping())
        await client.send("Still here.")
        assert text_of(await client.until()) == "Still here."


@pytest.mark.parametrize("timeout", ["0", "-1", "1.5", "soon"])
async def test_a_bad_timeout_is_refused(timeout: str) -> None:
    async with serve() as upstream:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(
                ws_url(upstream, "/waves/v1/tts/live", {"timeout": timeout}), additional_headers=AUTH
            )
        assert refused.value.response.status_code == 400


# --- old paths --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", ["/waves/v1", "/api/v1"])
async def test_the_old_paths_speak_the_same_protocol(base: str) -> None:
    async with serve() as upstream:
        async with tts(upstream, f"{base}/lightning-v3.1/get_speech/stream") as client:
            await client.send("Old.")
            assert text_of(await client.until()) == "Old."
        async with tts(upstream, f"{base}/lightning-v2/get_speech/stream") as client:
            v2 = {"consistency": 0.5, "similarity": 1, "enhancement": 2, "model": "anything"}
            await client.send("Older.", voice_id="emily", **v2)
            assert text_of(await client.until()) == "Older."
            for name, bad in [
                ("consistency", 1.1),
                ("similarity", -1),
                ("enhancement", 3),
                ("enhancement", 0.5),
            ]:
                await client.send("x", voice_id="emily", **{name: bad})
                assert name in (await client.frame())["message"]


async def test_a_socket_sends_pcm_whatever_the_format_unless_it_honours_it() -> None:
    request = {"text": "x", "output_format": "mulaw"}
    assert text_of(await converse(Options(), request)) == "x"
    frames = await converse(Options(socket_output_format="honoured"), request)
    assert len(audio_of(frames)) == 480  # one byte a sample


# --- many, and the end ------------------------------------------------------------------------------------


async def test_many_connections_at_once_are_all_served() -> None:
    async def say(client: TtsClient, number: int) -> str:
        for word in ("This ", "is ", f"number {number}."):
            await client.send(word, context_id="c", continues=True)
        await client.send("", context_id="c")
        return text_of(await client.until())

    async def visit(number: int) -> str:
        async with tts(upstream) as client:
            return await say(client, number)

    async with serve() as upstream:
        said = await asyncio.gather(*(visit(n) for n in range(200)))
    assert said == [f"This is number {n}." for n in range(200)]


async def test_leaving_the_server_closes_what_is_open() -> None:
    async with serve() as upstream:
        ws = await websockets.connect(ws_url(upstream, "/waves/v1/tts/live"), additional_headers=AUTH)
        waiting = asyncio.create_task(ws.wait_closed())
    await waiting
    assert ws.close_code == 1001
