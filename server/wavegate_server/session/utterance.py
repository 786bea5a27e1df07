"""One utterance: its text on the way up, its audio on the way down, and the account of both. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from wavegate_server.session.encode import Encoder
from wavegate_server.session.events import Upstream
from wavegate_server.session.retake import Heard, Repetition
from wavegate_server.session.speakable import Speakable
from wavegate_server.waves.settings import Settings
from wavegate_server.waves.tts import Completion, Request

if TYPE_CHECKING:
    from wavegate_server.session.tracing import UtteranceTrace

USUAL_S_PER_CHAR = 0.065
"""Playing time of a character at speed 1 (about 15 characters a second), for estimates only."""


ROUNDING_S = 0.001
"""Word times are rounded, to a millisecond at most."""
UNTIMED_S = 0.5
"""Audio beyond the last word whose time is known: less holds one word at most, which may be said again."""
UNFOUND_WORDS = 2
"""This many words that were heard last may be written otherwise in the text, as a number is, and are said again."""
LONGEST_WORD_CHARS = 40
"""A longer stretch without a blank is no word but a script that has none."""


class Cut(Enum):
    """A mark between pieces of text: what comes before it is spoken to its end first, as a request of its own."""

    CUT = auto()


@dataclass(slots=True)
class Ahead:
    """A request that was sent while the one before it was still to be reported as ended."""

    request: Request
    text: str = ""
    """What was sent in it."""
    was_cut: bool = False
    """Whether a cut, and not the utterance's end, closed it."""


class EstimateSource(Enum):
    """How spoken text is known; the contract's enum."""

    UNSPECIFIED = "UNSPECIFIED"
    WORD_TIMINGS = "WORD_TIMINGS"
    PROPORTIONAL = "PROPORTIONAL"


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word and when it is heard, in seconds from the utterance's start."""

    text: str
    index: int
    start_s: float
    end_s: float


@dataclass(slots=True)
class Metrics:
    """What the gateway measured of one utterance. Times are on the session's clock, durations in seconds.

    The contract's figures and those of the spans are made of the same readings, so that they agree.
    """

    first_text_at: float
    """When the first text was read."""
    first_sent_at: float | None = None
    first_received_at: float | None = None
    first_delivered_at: float | None = None
    last_received_at: float | None = None
    ended_at: float | None = None
    """When the event that ends it was about to be handed to the caller: no earlier than any of its audio."""
    max_gap_s: float = 0.0
    audio_samples: int = 0
    audio_bytes: int = 0
    chunk_count: int = 0
    input_character_count: int = 0
    reconnect_count: int = 0
    admission_wait_s: float = 0.0

    @property
    def time_to_first_audio_s(self) -> float | None:
        """Seconds from the first text to the first audio that was handed to the caller; None for none."""
        return None if self.first_delivered_at is None else self.first_delivered_at - self.first_text_at

    @property
    def upstream_time_to_first_audio_s(self) -> float | None:
        """Seconds from the first text sent upstream to the first audio from there; None for none."""
        if self.first_received_at is None or self.first_sent_at is None:
            return None
        return self.first_received_at - self.first_sent_at

    @property
    def total_s(self) -> float | None:
        """Seconds from the first text to the end of the utterance; None before that."""
        return None if self.ended_at is None else self.ended_at - self.first_text_at

    def received(self, now: float) -> None:
        """Audio came from upstream."""
        if self.first_received_at is None:
            self.first_received_at = now
        elif self.last_received_at is not None:
            self.max_gap_s = max(self.max_gap_s, now - self.last_received_at)
        self.last_received_at = now


@dataclass(slots=True, eq=False)
class Utterance:
    """An utterance from its first text to its last event."""

    utterance_id: str
    settings: Settings
    settings_revision: int
    first_input_sequence: int
    metrics: Metrics
    encoder: Encoder
    sample_rate_hz: int
    traceparent: str = ""
    trace: UtteranceTrace | None = None
    """Where it shows."""
    last_input_sequence: int = 0
    """The newest input that was about it."""
    text: str = ""
    """All text so far, without what cannot be spoken."""
    speakable: Speakable = field(default_factory=Speakable)
    """Takes out of the text what cannot be spoken."""
    pieces: deque[str | Cut] = field(default_factory=deque)
    """Text that was not sent upstream yet."""
    text_ended: bool = False
    started: bool = False
    """Whether `utterance_started` was emitted."""
    over: bool = False
    request: Request | None = None
    request_text: str = ""
    """What was sent in the current request."""
    request_base_s: float = 0.0
    """Playing time of the utterance before the current request."""
    heard: Heard = field(default_factory=Heard)
    """What of the current request was delivered, or of the lost one that it repeats."""
    repetition: Repetition | None = None
    """Set while what was heard already comes again."""
    repeated_settings: Settings | None = None
    """The settings of the text that comes first, where it was sent before and lost: it keeps them."""
    doubted_s: float | None = None
    """Playing time after which the current request fell silent where that may have been its end, in seconds."""
    is_compared: bool = False
    """Whether the current request, which was doubted, sounds otherwise this time: only its length is of use."""
    repeated_s: float = 0.0
    """Playing time at the beginning of the current request that came before: of a word that a lost connection cut."""
    request_cut: bool = False
    """Whether a cut, and not the utterance's end, closed the current request."""
    ahead: Ahead | None = None
    """The request behind the current one, or behind that of the utterance before this one."""
    completion: Completion | None = None
    """How the end of the latest request was known; None: nothing was spoken yet."""
    is_unconfirmed: bool = False
    """Whether nothing proves that one of its requests was heard to its end."""
    whole: bool = False
    """Whether all of it was spoken."""
    held_byte: bytes = b""
    held_samples: int = 0
    """What the encoder was given and has not returned yet."""
    words: list[TimedWord] = field(default_factory=list)
    request_words: int = 0
    """Words that came for the current request."""
    words_again: int = 0
    """How many of them came before: their request was lost, and is said again."""
    upstreams: list[Upstream] = field(default_factory=list)
    discontinuity: bool = False
    playback_s: float | None = None
    """What the client reported as played."""
    chunk_index: int = 0

    def __repr__(self) -> str:
        return f"<Utterance {self.utterance_id} {len(self.text)} chars, {self.metrics.audio_samples} samples>"

    @property
    def blank(self) -> bool:
        """Whether nothing but white space was said so far."""
        return not self.text.strip()

    @property
    def has_words(self) -> bool:
        """Whether there is something to say that was not sent yet."""
        return any(isinstance(p, str) and p.strip() for p in self.pieces)

    @property
    def is_beyond_repeated(self) -> bool:
        """Whether audio of the current request was delivered that no earlier request for the same text had."""
        heard_s = self.metrics.audio_samples / self.sample_rate_hz
        return heard_s - self.request_base_s > self.repeated_s + ROUNDING_S

    @property
    def next_settings(self) -> Settings:
        """The settings of the next message."""
        return self.settings if self.repeated_settings is None else self.repeated_settings

    @property
    def newest_request(self) -> Request | None:
        """The request that takes its text; None where the next text begins one."""
        return self.ahead.request if self.ahead is not None else self.request

    @property
    def open_requests(self) -> list[Request]:
        """The requests that were sent and whose end is still to come, the older one first."""
        ahead = self.ahead.request if self.ahead is not None else None
        return [request for request in (self.request, ahead) if request is not None]

    @property
    def takes_text(self) -> bool:
        """Whether there is something to send, or to close, in the newest request."""
        request = self.newest_request
        return request is not None and not request.closing and bool(self.pieces or self.text_ended)

    @property
    def waiting_chars(self) -> int:
        return sum(len(p) for p in self.pieces if isinstance(p, str))

    def add(self, text: str) -> None:
        """Append text."""
        self.text += text
        self.metrics.input_character_count += len(text)
        if text:
            self.pieces.append(text)

    def cut(self) -> None:
        """Have what was said so far spoken on its own. Nothing happens where nothing is open."""
        if (self.has_words or self._can_close()) and not (self.pieces and self.pieces[-1] is Cut.CUT):
            self.pieces.append(Cut.CUT)

    def cut_before_waiting(self) -> None:
        """Close the open request before what is still waiting: the next message opens another."""
        if self._can_close():
            at = 0
        elif self.request is None and self.repeated_settings is not None:
            at = 1  # behind what is said again
        else:
            return
        if len(self.pieces) <= at or self.pieces[at] is not Cut.CUT:
            self.pieces.insert(at, Cut.CUT)

    def _can_close(self) -> bool:
        request = self.newest_request
        return request is not None and not request.closing

    def send_ahead(self, request: Request) -> None:
        """Send the next text in `request`, behind the one whose end is still to be reported."""
        self.ahead = Ahead(request)

    def return_ahead(self) -> None:
        """Put what was sent ahead back in line."""
        ahead, self.ahead = self.ahead, None
        if ahead is None:
            return
        if ahead.was_cut:
            self.pieces.appendleft(Cut.CUT)
        self.pieces.appendleft(ahead.text)

    def catch_up(self) -> None:
        """The request before has ended: what was sent ahead is what is spoken now."""
        ahead, self.ahead = self.ahead, None
        if ahead is not None:
            self.request, self.request_text, self.request_cut = ahead.request, ahead.text, ahead.was_cut

    def note_sent(self, text: str, *, is_cut: bool) -> None:
        """`text` is sent in the newest request; a cut closes it, or not."""
        if self.ahead is not None:
            self.ahead.text += text
            self.ahead.was_cut = is_cut
        else:
            self.request_text += text
            self.request_cut = is_cut

    def take(self) -> tuple[str, bool, bool] | None:
        """The next message: its text, whether it closes the request, and whether a cut does. None while there is
        nothing to say.

        It begins a request where the newest one takes no more text. Leading white space waits for the text it belongs
        to, and is dropped where none follows.
        """
        newest = self.newest_request
        fresh = newest is None or newest.closing
        text = ""
        while self.pieces:
            piece = self.pieces.popleft()
            if isinstance(piece, str):
                text += piece
                continue
            if fresh and not text.strip():
                continue  # nothing was said before this cut
            return text, True, True
        if fresh and not text.strip():
            if text and not self.text_ended:
                self.pieces.append(text)
            return None
        if self.text_ended:
            return text, True, False
        return (text, False, False) if text else None

    def give_back(self) -> None:
        """Put what the current request said back in line: it was lost unheard."""
        if self.request_cut:
            self.pieces.appendleft(Cut.CUT)
        self.pieces.appendleft(self.request_text)
        if self.request is not None:
            self.repeated_settings = self.request.settings
        self.lose_request()

    def say_again(self) -> bool:
        """Put back in line what the current request has left unheard, after its connection was lost.

        With word times that is the rest of the text; without, all of it, held against what was heard. False where
        every word was heard, so that nothing is left to say.
        """
        heard_s = self.metrics.audio_samples / self.sample_rate_hz
        if not self.heard.size_bytes:
            self.give_back()
            return True
        first = len(self.words) - max(self.request_words, self.words_again)
        words = self.words[first:]
        at, unfound = end_of_spoken(self.request_text, words, heard_s)
        rest = self.request_text[at:]
        left = any(c.isalnum() for c in rest)
        timed_s = words[-1].end_s if words else self.request_base_s
        is_told = bool(words) and unfound <= UNFOUND_WORDS and not (left and heard_s - timed_s > UNTIMED_S)
        if self.repetition is not None or not is_told:
            # More was heard than words tell.
            self.repetition = Repetition(self.heard)
            self.give_back()
            return True
        self.request_text = rest if left else ""
        # Words that were announced and not heard are announced anew, with the times that they then have.
        self.words = [w for i, w in enumerate(self.words) if i < first or w.end_s <= heard_s + ROUNDING_S]
        whole_s = max((w.end_s for w in self.words[first:]), default=self.request_base_s)
        cut_s = heard_s - whole_s
        self.repeated_s = cut_s if whole_s > self.request_base_s else max(self.repeated_s, cut_s)
        self.discontinuity = True
        self.heard = Heard()
        self.give_back()
        self.words_again = 0
        return left or self.has_words

    def lose_request(self) -> None:
        """The current request is over, and another will say the same."""
        words_again = max(self.words_again, self.request_words)
        self.forget_request()
        self.words_again = words_again

    def finish_request(self) -> None:
        """All of the current request was spoken."""
        self.forget_request()
        self.repeated_settings = None
        self.doubted_s = None
        self.is_compared = False
        self.repetition = None
        self.repeated_s = 0.0
        self.heard = Heard()

    def forget_request(self) -> None:
        """The current request is over, one way or the other. What was sent ahead of its end stays."""
        self.request = None
        self.request_text = ""
        self.request_cut = False
        self.request_words = self.words_again = 0
        self.held_byte = b""  # half a sample of it is none of the next one's

    def add_word(self, text: str, start_s: float, end_s: float) -> TimedWord | None:
        """Note a word of the current request, times within it; None for one that was noted before."""
        self.request_words += 1
        base = self.request_base_s
        if self.request_words <= self.words_again:
            if self.repetition is None:  # what is heard is what comes now
                index = len(self.words) - self.words_again + self.request_words - 1
                self.words[index] = TimedWord(text, index, base + start_s, base + end_s)
            return None
        word = TimedWord(text, len(self.words), base + start_s, base + end_s)
        self.words.append(word)
        return word

    def whole_samples(self, pcm: bytes) -> bytes:
        """Join what was held back, and hold back half a sample."""
        if self.held_byte:
            pcm = self.held_byte + pcm
            self.held_byte = b""
        if len(pcm) % 2:
            self.held_byte = pcm[-1:]
            pcm = pcm[:-1]
        return pcm

    def spoken(self, heard_s: float, total_s: float | None) -> tuple[str, str, EstimateSource]:
        """What of the text was heard in the first `heard_s` seconds, what was not, and how that is known.

        `total_s` is the playing time of the whole text where it is known.
        """
        if not self.words and (heard_s <= 0 or not self.text):
            return "", self.text, EstimateSource.UNSPECIFIED
        source = EstimateSource.WORD_TIMINGS if self.words else EstimateSource.PROPORTIONAL
        if total_s is not None and heard_s >= total_s:
            return self.text, "", source
        if self.words:
            at, _ = end_of_spoken(self.text, self.words, heard_s)
        else:
            speed = self.settings.get("speed", 1.0)
            whole_s = total_s or max(heard_s, len(self.text) * USUAL_S_PER_CHAR / speed)
            at = _word_end(self.text, int(len(self.text) * (heard_s / whole_s)))
        return self.text[:at], self.text[at:], source


def end_of_spoken(text: str, words: Sequence[TimedWord], heard_s: float) -> tuple[int, int]:
    """Return where in the text the last word ends that was heard whole and found, and how many words that were heard
    behind it are not found: an upstream may time words otherwise than they are written.

    A word is looked for where it can be: behind those before it, and past no more words than were not found.
    """
    folded = _folded(text)
    at = cursor = unfound = unfound_heard = 0
    for word in words:
        is_heard = word.end_s <= heard_s + ROUNDING_S
        end = _end_of_word(folded, _folded(word.text), cursor, unfound + 1)
        if end is None:
            unfound += 1
            unfound_heard += is_heard
            continue
        cursor, unfound = end, 0
        if is_heard:
            at, unfound_heard = cursor, 0
            while at < len(text) and not text[at].isspace() and not text[at].isalnum():
                at += 1  # the punctuation belongs to the word before it
    return at, unfound_heard


def _folded(text: str) -> str:
    """The text in small letters, each character in its place."""
    return "".join(low if len(low := c.lower()) == 1 else c for c in text)


def _end_of_word(text: str, word: str, cursor: int, skipped: int) -> int | None:
    """Return where `word` ends in `text`, at `cursor` or behind it; None where it is not, or only as a part of another
    word, or past more than `skipped` others."""
    while word and not word[-1].isalnum():
        word = word[:-1]
    while word and not word[0].isalnum():
        word = word[1:]
    found = text.find(word, cursor) if word else -1
    while found >= 0:
        between = text[cursor:found]
        if len(between) > LONGEST_WORD_CHARS * (skipped + 1):
            return None
        if sum(any(c.isalnum() for c in one) for one in between.split()) > skipped:
            return None
        end = found + len(word)
        if not (_joins(text, found) or _joins(text, end)):
            return end
        found = text.find(word, found + 1)
    return None


def _joins(text: str, at: int) -> bool:
    """True where a word of a script with blanks between its words goes on across this place."""
    if at <= 0 or at >= len(text):
        return False
    pair = text[at - 1 : at + 1]
    return pair.isalnum() and all(c.isdecimal() or c.lower() != c.upper() for c in pair)


def _word_end(text: str, at: int) -> int:
    """The last word end at or before `at`; `at` itself in a script that has no blanks between words."""
    if at >= len(text) or text[at].isspace():
        return min(at, len(text))
    start = at
    while start > 0 and not text[start - 1].isspace():
        start -= 1
    return at if at - start > LONGEST_WORD_CHARS else len(text[:start].rstrip())
