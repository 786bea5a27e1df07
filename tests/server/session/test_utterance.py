"""One utterance: its text on the way up, its audio on the way down, and the account of both."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from wavegate_server.audio import AudioFormat, Encoding
from wavegate_server.session.encode import make_encoder
from wavegate_server.session.synthesis_events import AudioProduced, chunks
from wavegate_server.session.utterance import (
    LONGEST_WORD_CHARS,
    USUAL_S_PER_CHAR,
    Cut,
    EstimateSource,
    Metrics,
    TimedWord,
    Utterance,
    end_of_spoken,
)
from wavegate_server.waves.tts import Mode, Request, TtsProtocol

PCM_24K = AudioFormat(Encoding.LINEAR16, 24_000)


def utterance(text: str = "", audio_format: AudioFormat = PCM_24K, **settings: Any) -> Utterance:
    made = Utterance(
        "u1", settings, 1, 1, Metrics(0.0), make_encoder(audio_format), audio_format.sample_rate_hz
    )
    made.add(text)
    return made


class Sender:
    """Sends what an utterance has to say, as the session does."""

    def __init__(self, said: Utterance) -> None:
        self.said = said
        self.sent: list[tuple[int, str, bool]] = []
        """Number of the request, text, whether it closed the request."""
        self.requests = 0

    def send(self) -> bool:
        """Send the next message; False when there is none."""
        taken = self.said.take()
        if taken is None:
            return False
        text, last, is_cut = taken
        request = self.said.newest_request
        if request is None or request.closing:
            self.requests += 1
            request = Request(f"r-{self.requests}", {})
            if self.said.request is None:
                self.said.request = request
            else:
                self.said.send_ahead(request)
        self.said.note_sent(text, is_cut=is_cut)
        if last:
            TtsProtocol(Mode.CONTINUATIONS, 24_000, "s").speak(request, text, last=True, now=0.0)
        self.sent.append((self.requests, text, last))
        return True

    def complete(self) -> None:
        """The open request was spoken to its end."""
        self.said.finish_request()
        self.said.catch_up()

    def lose(self) -> None:
        """The open request was lost unheard, and what was sent ahead with it."""
        self.said.return_ahead()
        self.said.give_back()

    def send_all(self) -> list[tuple[int, str, bool]]:
        """Send until there is nothing more, completing requests on the way; what was sent."""
        before = len(self.sent)
        while True:
            if self.said.request is not None and self.said.request.closing:
                self.complete()
            if self.said.request is None and not self.said.has_words:
                return self.sent[before:]
            if not (self.said.pieces or self.said.text_ended) or not self.send():
                return self.sent[before:]


# -- text --------------------------------------------------------------------------------------------------------


def test_a_whole_utterance_is_one_message() -> None:
    said = utterance("Hello there.")
    said.text_ended = True
    assert said.take() == ("Hello there.", True, False)


def test_text_goes_as_it_comes_and_an_empty_one_closes() -> None:
    sender = Sender(said := utterance("Hel"))
    sender.send()
    said.add("lo.")
    sender.send()
    assert not sender.send()
    said.text_ended = True
    sender.send()
    assert sender.sent == [(1, "Hel", False), (1, "lo.", False), (1, "", True)]


def test_what_waits_goes_as_one_message() -> None:
    said = utterance("One ")
    said.add("two ")
    said.add("")
    said.add("three")
    assert said.waiting_chars == 13
    assert said.take() == ("One two three", False, False)
    assert said.waiting_chars == 0


def test_leading_blanks_wait_for_their_text() -> None:
    said = utterance("  ")
    assert said.take() is None
    assert said.blank
    said.add("\n")
    assert said.take() is None
    said.add("Hello")
    assert said.take() == ("  \nHello", False, False)
    assert not said.blank


def test_inner_blanks_are_sent() -> None:
    sender = Sender(said := utterance("One"))
    sender.send()
    said.add(" ")
    sender.send()
    said.add("two")
    sender.send()
    assert [text for _, text, _ in sender.sent] == ["One", " ", "two"]


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u00a0\u2003"])
def test_nothing_but_blanks_is_never_sent(text: str) -> None:
    said = utterance(text)
    said.text_ended = True
    assert said.blank
    assert not said.has_words
    assert said.take() is None
    assert not said.pieces


def test_a_flush_closes_the_request_and_the_next_text_opens_another() -> None:
    sender = Sender(said := utterance("One."))
    sender.send()
    said.cut()
    said.add(" Two.")
    assert sender.send_all() == [(1, "", True), (2, " Two.", False)]
    said.text_ended = True
    assert sender.send_all() == [(2, "", True)]


def test_a_flush_before_the_text_was_sent() -> None:
    sender = Sender(said := utterance("One."))
    said.cut()
    said.add("Two.")
    said.text_ended = True
    assert sender.send_all() == [(1, "One.", True), (2, "Two.", True)]


def test_flushes_of_nothing_do_nothing() -> None:
    said = utterance()
    said.cut()
    assert not said.pieces
    said = utterance("  ")
    said.cut()
    assert list(said.pieces) == ["  "]
    sender = Sender(said := utterance("One."))
    said.cut()
    said.cut()
    assert sender.send_all() == [(1, "One.", True)]
    said.cut()
    assert not said.pieces


def test_a_flush_while_the_request_already_closes() -> None:
    sender = Sender(said := utterance("One."))
    said.cut()
    sender.send()
    said.cut()
    assert not said.pieces


def test_an_immediate_change_closes_the_request_before_what_waits() -> None:
    sender = Sender(said := utterance("One"))
    sender.send()
    said.add(" two")
    said.cut_before_waiting()
    said.cut_before_waiting()
    said.add(" three")
    assert sender.send_all() == [(1, "", True), (2, " two three", False)]


def test_an_immediate_change_with_no_request_open_changes_nothing() -> None:
    said = utterance("One")
    said.cut_before_waiting()
    assert said.take() == ("One", False, False)


def test_what_was_lost_unheard_is_said_again() -> None:
    sender = Sender(said := utterance("One. "))
    sender.send()
    said.add("Two. ")
    sender.send()
    said.add("Three.")
    sender.lose()
    said.text_ended = True
    assert sender.send_all() == [(2, "One. Two. Three.", True)]


def test_what_was_lost_unheard_keeps_its_cut() -> None:
    sender = Sender(said := utterance("One."))
    said.cut()
    sender.send()
    said.add("Two.")
    sender.lose()
    assert sender.send_all() == [(2, "One.", True), (3, "Two.", False)]


def test_only_the_lost_request_is_said_again() -> None:
    sender = Sender(said := utterance("One."))
    said.cut()
    sender.send()
    sender.complete()
    said.add("Two.")
    sender.send()
    sender.lose()
    said.text_ended = True
    assert sender.send_all() == [(3, "Two.", True)]


class TextIsConserved(RuleBasedStateMachine):
    """Whatever order text, flushes, changes, losses and ends come in: each character is said once, in order.

    Only blanks may be left out, and only at the edges of a request.
    """

    def __init__(self) -> None:
        super().__init__()
        self.said = utterance()
        self.sender = Sender(self.said)
        self.given = ""
        self.heard: list[str] = []
        """Text of the requests that were spoken to their end."""

    @precondition(lambda self: not self.said.text_ended)
    @rule(text=st.text(st.sampled_from("ab. \n"), max_size=4))
    def add(self, text: str) -> None:
        self.given += text
        self.said.add(text)

    @precondition(lambda self: not self.said.text_ended)
    @rule()
    def flush(self) -> None:
        self.said.cut()

    @rule()
    def change(self) -> None:
        self.said.cut_before_waiting()

    @rule()
    def end(self) -> None:
        self.said.text_ended = True

    @rule()
    def send(self) -> None:
        request = self.said.newest_request
        if request is not None and not request.closing:
            if not self.said.takes_text:
                return
        elif not self.said.has_words or self.said.ahead is not None:
            return
        assert self.sender.send(), "there was something to say"

    @precondition(lambda self: self.said.request is not None and self.said.request.closing)
    @rule()
    def complete(self) -> None:
        self.heard.append(self.said.request_text)
        self.sender.complete()

    @precondition(lambda self: self.said.request is not None)
    @rule()
    def lose(self) -> None:
        self.sender.lose()

    @invariant()
    def nothing_is_lost_or_said_twice(self) -> None:
        waiting = "".join(p for p in self.said.pieces if isinstance(p, str))
        ahead = self.said.ahead.text if self.said.ahead is not None else ""
        all_of_it = "".join(self.heard) + self.said.request_text + ahead + waiting
        if not (self.said.text_ended and not self.said.has_words):
            assert all_of_it == self.given
        assert all_of_it.split() == self.given.split() or "".join(all_of_it.split()) == "".join(
            self.given.split()
        )

    @invariant()
    def no_two_cuts_in_a_row(self) -> None:
        pieces = list(self.said.pieces)
        assert not any(a is Cut.CUT and b is Cut.CUT for a, b in itertools.pairwise(pieces))

    def teardown(self) -> None:
        """Said to its end, everything but blanks was heard."""
        self.said.text_ended = True
        while self.said.request is not None or self.said.has_words:
            if self.said.request is not None and self.said.request.closing:
                self.complete()
            else:
                assert self.sender.send()
        assert "".join("".join(self.heard).split()) == "".join(self.given.split())


TestTextIsConserved = TextIsConserved.TestCase


# -- samples -----------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=7)))
def test_samples_stay_whole_however_the_bytes_come(pieces: list[bytes]) -> None:
    said = utterance()
    out = [said.whole_samples(piece) for piece in pieces]
    assert all(len(piece) % 2 == 0 for piece in out)
    assert b"".join(out) + said.held_byte == b"".join(pieces)


def test_half_a_sample_of_one_request_is_none_of_the_next_ones() -> None:
    said = utterance()
    assert said.whole_samples(b"abc") == b"ab"
    said.forget_request()
    assert said.whole_samples(b"de") == b"de"
    assert said.whole_samples(b"f") == b""
    said.give_back()
    assert said.whole_samples(b"gh") == b"gh"


def cut_up(
    said: Utterance, pieces: list[bytes], audio_format: AudioFormat, size: int | None
) -> list[AudioProduced]:
    """Chunks of an utterance whose PCM came in these pieces."""
    out = []
    for piece in pieces:
        pcm = said.whole_samples(piece)
        out += chunks(said, said.encoder.encode(pcm) if pcm else b"", len(pcm) // 2, audio_format, size)
    return out + chunks(said, said.encoder.finish(), 0, audio_format, size)


encodings = st.sampled_from([Encoding.LINEAR16, Encoding.MULAW, Encoding.ALAW, Encoding.WAV, Encoding.MP3])


@given(
    encodings,
    st.sampled_from([8000, 16_000, 24_000, 44_100]),
    st.lists(st.integers(0, 3000).map(lambda n: (bytes(range(1, 252)) * 12)[:n]), max_size=12),
    st.none() | st.integers(1, 2000),
)
def test_chunks_are_the_audio_and_their_times_have_no_gap(
    encoding: Encoding, rate_hz: int, pieces: list[bytes], size: int | None
) -> None:
    audio_format = AudioFormat(encoding, rate_hz)
    found = cut_up(said := utterance("x", audio_format), pieces, audio_format, size)
    alone = make_encoder(audio_format)
    pcm = b"".join(pieces)
    pcm = pcm[: len(pcm) // 2 * 2]
    audio = (alone.encode(pcm) if pcm else b"") + alone.finish()
    if encoding is not Encoding.MP3:  # whose bits depend on how the samples are handed over
        assert b"".join(c.audio for c in found) == audio
    width = encoding.bytes_per_sample or 1
    assert all(c.audio and len(c.audio) % width == 0 for c in found)
    assert all(len(c.audio) <= max(size or 10**9, width) for c in found)
    assert [c.chunk_index for c in found] == list(range(len(found)))
    at = 0
    for chunk in found:
        assert chunk.start_offset_s == pytest.approx(at / rate_hz)
        at += chunk.samples
    assert at == len(pcm) // 2 - said.held_samples
    assert said.held_samples == 0 or not found, "all that was given is accounted for"
    metrics = said.metrics
    assert (metrics.audio_samples, metrics.chunk_count) == (at, len(found))
    assert metrics.audio_bytes == sum(len(c.audio) for c in found)


def test_what_an_encoder_holds_back_counts_where_it_is_heard() -> None:
    audio_format = AudioFormat(Encoding.MP3, 24_000)
    found = cut_up(utterance("x", audio_format), [bytes(200)] * 60, audio_format, None)
    assert found[0].start_offset_s == 0
    assert found[0].samples > 100, "with all that was held back before it"
    assert sum(c.samples for c in found) == 6000


# -- words -------------------------------------------------------------------------------------------------------


def test_words_are_counted_and_timed_over_all_requests() -> None:
    said = utterance("One two. Three.", word_timings=True)
    assert said.add_word("One", 0.0, 0.3) == TimedWord("One", 0, 0.0, 0.3)
    assert said.add_word("two.", 0.3, 0.6) == TimedWord("two.", 1, 0.3, 0.6)
    said.forget_request()
    said.request_base_s = 0.75
    assert said.add_word("Three.", 0.0, 0.5) == TimedWord("Three.", 2, 0.75, 1.25)


def test_words_of_a_lost_request_are_not_told_twice() -> None:
    said = utterance("One two three.", word_timings=True)
    said.add_word("One", 0.0, 0.3)
    said.add_word("two", 0.3, 0.6)
    said.give_back()
    assert said.add_word("One", 0.0, 0.3) is None
    said.give_back()  # and lost again, sooner
    assert said.add_word("One", 0.0, 0.3) is None
    assert said.add_word("two", 0.3, 0.6) is None
    assert said.add_word("three.", 0.6, 0.9) == TimedWord("three.", 2, 0.6, 0.9)
    said.forget_request()
    assert said.add_word("Next.", 0.0, 0.1) is not None


# -- what was spoken ---------------------------------------------------------------------------------------------

TEXT = "Well, this is spoken, and that is not."


def timed(text: str, *ends: float) -> Utterance:
    """An utterance whose words end at these times."""
    said = utterance(text, word_timings=True)
    start = 0.0
    for word, end in zip(text.split(), ends, strict=False):
        said.add_word(word.rstrip(",."), start, end)
        start = end
    return said


@pytest.mark.parametrize(
    ("heard_s", "spoken"),
    [
        (0.0, ""),
        (0.49, ""),
        (0.5, "Well,"),
        (1.2, "Well, this"),
        (2.0, "Well, this is spoken,"),
        (2.0004, "Well, this is spoken,"),
        (9.0, "Well, this is spoken, and"),
    ],
)
def test_by_word_times(heard_s: float, spoken: str) -> None:
    said = timed(TEXT, 0.5, 1.0, 1.5, 2.0, 2.5)
    assert said.spoken(heard_s, None) == (spoken, TEXT[len(spoken) :], EstimateSource.WORD_TIMINGS)


def test_all_of_it_is_all_of_it() -> None:
    """Also what has no time of its own, behind the last word that has one."""
    assert timed(TEXT, 0.5, 1.0).spoken(3.0, 3.0) == (TEXT, "", EstimateSource.WORD_TIMINGS)
    assert utterance(TEXT).spoken(3.0, 3.0) == (TEXT, "", EstimateSource.PROPORTIONAL)


def test_words_that_are_not_in_the_text_are_passed_over() -> None:
    said = utterance("It costs $100 today.", word_timings=True)
    for number, word in enumerate(["It", "costs", "one-hundred", "today"]):
        said.add_word(word, number * 0.5, number * 0.5 + 0.5)
    assert said.spoken(1.5, None)[0] == "It costs"
    assert said.spoken(2.0, None)[0] == "It costs $100 today."


def test_a_repeated_word_is_the_right_one() -> None:
    said = timed("no no no", 0.5, 1.0, 1.5)
    assert said.spoken(1.0, None)[:2] == ("no no", " no")


@pytest.mark.parametrize(
    ("heard_s", "total_s", "spoken"),
    [
        (1.0, 2.0, "Well, this is"),
        (1.9, 2.0, "Well, this is spoken, and that is"),
        (0.01, 2.0, ""),
    ],
)
def test_by_the_share_of_the_audio(heard_s: float, total_s: float, spoken: str) -> None:
    found = utterance(TEXT).spoken(heard_s, total_s)
    assert found == (spoken, TEXT[len(spoken) :], EstimateSource.PROPORTIONAL)


def test_by_the_usual_pace_where_the_whole_length_is_not_known() -> None:
    half_s = len(TEXT) * USUAL_S_PER_CHAR / 2
    assert utterance(TEXT).spoken(half_s, None)[0] == "Well, this is"
    assert utterance(TEXT, speed=2.0).spoken(half_s / 2, None)[0] == "Well, this is"


def test_what_was_not_heard_is_not_known_to_be_spoken() -> None:
    assert utterance(TEXT).spoken(0.0, None) == ("", TEXT, EstimateSource.UNSPECIFIED)
    assert utterance().spoken(1.0, None) == ("", "", EstimateSource.UNSPECIFIED)


def test_a_script_without_blanks_is_cut_anywhere() -> None:
    text = "今日は天気がとてもいいですね" * 10
    spoken, rest, _ = utterance(text).spoken(1.0, 2.0)
    assert len(spoken) == len(text) // 2
    assert spoken + rest == text
    assert len(text) // 2 > LONGEST_WORD_CHARS


@given(
    st.text(st.sampled_from("ab,. 日🙂é\n"), max_size=60),
    st.floats(0, 10),
    st.none() | st.floats(0.01, 10),
    st.lists(
        st.tuples(st.text(st.sampled_from("ab日"), min_size=1, max_size=3), st.floats(0, 5)), max_size=8
    ),
)
def test_spoken_and_remaining_are_the_text(
    text: str, heard_s: float, total_s: float | None, words: list[tuple[str, float]]
) -> None:
    said = utterance(text, word_timings=bool(words))
    for word, end_s in words:
        said.add_word(word, 0.0, end_s)
    spoken, rest, source = said.spoken(heard_s, total_s)
    assert spoken + rest == text
    assert source is not EstimateSource.UNSPECIFIED or spoken == ""
    if heard_s > 0:
        more, _, _ = said.spoken(heard_s + 1, total_s)
        assert len(more) >= len(spoken), "who hears longer hears no less"


def seconds_each(*words: str) -> list[TimedWord]:
    """Words of a second each."""
    return [TimedWord(word, index, float(index), index + 1.0) for index, word in enumerate(words)]


@pytest.mark.parametrize(
    ("text", "words", "heard_s", "spoken", "unfound"),
    [
        ("Hello, big world!", ["Hello", "big", "world"], 2.0, "Hello, big", 0),
        ("Hello, big world!", ["HELLO,", "BIG", "WORLD!"], 2.0, "Hello, big", 0),
        ("I bought 25 apples.", ["I", "bought", "twenty", "five", "apples"], 4.0, "I bought", 2),
        ("I bought 25 apples.", ["I", "bought", "twenty", "five", "apples"], 5.0, "I bought 25 apples.", 0),
        ("5 or five?", ["five", "or", "five"], 1.0, "", 1),
        ("5 or five?", ["five", "or", "five"], 2.0, "5 or", 0),
        ("No, Nora knows no one.", ["no", "nora", "knows", "no", "one"], 4.0, "No, Nora knows no", 0),
        ("A banana and a pear", ["uh", "a", "banana"], 2.0, "A", 0),
        ("well-known facts", ["well", "known", "facts"], 2.0, "well-known", 0),
        ("10km on", ["ten", "kilometres", "on"], 2.0, "", 2),
        ("你好世界", ["你好", "世界"], 1.0, "你好", 0),
        ("one two three four", ["uno", "dos", "tres", "cuatro"], 3.0, "", 3),
        ("one two three four", ["one", "three", "four"], 2.0, "one two three", 0),
        ("one two three four", ["one", "four"], 2.0, "one", 1),
    ],
)
def test_where_the_last_word_ends_that_was_heard(
    text: str, words: list[str], heard_s: float, spoken: str, unfound: int
) -> None:
    """However it is written, but never past words that may not have been heard."""
    at, missed = end_of_spoken(text, seconds_each(*words), heard_s)
    assert (text[:at], missed) == (spoken, unfound)
