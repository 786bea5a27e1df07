"""How the end of a text-to-speech request is known: what is reckoned, and the table that decides.

Theory
------
A request has ended when nothing of its text is owed any more. No frame of the upstream says so for certain: its
documents and clients disagree on whether `complete` comes, whether once for the whole request or once for each
*release* (a piece of text that it speaks in one go), and when. A pause says nothing at all. So the end is
reckoned from two things that are known, and time is the last resort:

- **Completes** against the releases that the text can have been cut into. `possible_releases` counts the most
  that there can be: sentences, long sentences in parts; delays between messages add to them. A `complete` counts where
  audio came since the last one that counted. As many as can be: all of them. Fewer: all of them only where this
  upstream was seen to send one for a request of this kind (`Habits`) and more was heard than the text without its
  last release can take; by habit alone, the end is likely, and reported as that.
- **Audio heard** against the text. Words with times tell exactly how far the speech has come. Without them
  there is a length below which the text cannot have been spoken: what no voice passes, and, once learnt, the
  pace of this voice.

Both are put into classes (`Completes`, `Heard`), and `VERDICTS` has a row for each pair, which says when the
request ends: at once, after some quiet, or never by quiet, so that the quiet is a stall. Where an upstream is not
known yet and both could be, the text is spoken once more over another connection: the same silence at the same
place is an end. The table has all that ends a request of its own accord; a close, an error frame and a frame of the
request that follows, which end it from outside, are in `waves/tts.py`.

What is learnt is kept per upstream, learnt from several requests in a row, and unlearnt at once when audio comes
for a request that was reported as ended.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

OWED_S = 5.0
"""Seconds of silence after which an upstream that owes audio has stalled. A request ends by quiet no
sooner, except where its last word was heard or where it has no words."""
LAST_WORD_S = 1.0
"""Seconds of quiet that end a request whose last word was heard, as its time says; or one that is spoken again and
falls silent where it was silent for `OWED_S` before."""
NOTHING_TO_SAY_S = 2.0
"""Seconds that a text without letters and digits, such as an emoji, is given to be heard all the same."""
HAND_OVER_S = 0.5
"""Seconds of quiet after which the next request is sent where no `complete` says that the upstream has done with this
one. LiveKit's plugin takes 0.6 s of quiet for the end; here it is only the time to send, and the end waits."""

PRIOR_S_PER_LETTER = 0.039
"""Playing time of a letter or digit at speed 1 below which silence is no end where the pace of the voice was not learnt
yet: half of what a usual voice takes (15 characters a second), and about what espeak-ng takes at its fastest (450
words a minute). A `complete` is believed without: only a pace that was learnt is held against it."""
SHARES = (0.7, 0.85)
"""Shares of the learnt pace, of its mean and of its fastest, below which (both) a text was not heard whole."""
STRICT_SHARES = (0.85, 0.95)
"""The same where a release is missing of an upstream that was seen to complete each of them."""
PACE_CHARS = 25
"""Characters of the shortest text that teaches a pace: shorter ones vary too much."""
PACE_REQUESTS = 3
"""Whole requests of a voice after which its pace counts as learnt."""
SLACK_S = 0.01
"""Seconds by which the last word may reach beyond the audio: its times are rounded."""

UNTIMED_S = 0.5
"""Seconds of audio behind the last word that has a time, with which others may have been spoken: their times may be
late, or never come."""
ALIKE_SHARE = 0.25
"""Share by which the lengths of a text may differ that a voice speaks otherwise each time."""
RELEASE_CHARS = 150
"""Characters that are spoken in one piece if no sentence ends among them."""
LONGEST_LATE_S = 10.0
"""Seconds by which a `complete` may be late at most: the longest `complete_backoff_ms` (tts-ws)."""
LEARN_REQUESTS = 2
"""Requests in a row that teach a habit where they show it without doubt."""
LEARN_BLIND_REQUESTS = 5
"""The same where the upstream's ids do not show whether there was more than one release."""
FORGET_S = 600.0
"""Seconds after which an upstream is given another chance to do what it was seen not to do."""
REMEMBERED_VOICES = 64
WORD_WINDOW = 6
"""Words of the text among which the next timed word is looked for: numbers and the like are spoken otherwise."""

_SENTENCE = re.compile(r"[.!?…;:]+[\"'”’»)\]]*(?!\d)|\n+|[。！？；।॥؟۔]+[”’」』）]*")
"""Where an upstream may cut a text: more often than most do, since what is counted is the most that can be."""
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


class Completes(Enum):
    """The `complete` frames of a request, against what it was released in."""

    NONE = auto()
    """None came for what was heard so far."""
    SOME = auto()
    """Some came, and the upstream may yet have another release to speak."""
    AS_USUAL = auto()
    """As many came as this upstream was seen to send, and more could come: it may have changed."""
    ALL = auto()
    """As many came as can come; or as this upstream was seen to send, for audio that only the whole text can take."""


class Heard(Enum):
    """The audio of a request, against its text."""

    NOTHING_TO_SAY = auto()
    """The text has no letters and digits, and nothing was heard."""
    SOMETHING = auto()
    """The text has no letters and digits, and something was heard all the same."""
    MISSING = auto()
    """Not all of the text can have been spoken: too little for any voice, none since the last text, or words are
    left of those that the upstream gives the times of."""
    SHORT = auto()
    """Less than this text was ever spoken in, as far as that is known."""
    PLAUSIBLE = auto()
    """As much as the text can be."""
    LAST_WORD = auto()
    """All of the text, as the times of its words say."""


class Sends(Enum):
    """Whether an upstream sends `complete`."""

    UNKNOWN = auto()
    NEVER = auto()
    ALWAYS = auto()


class Verdict(Enum):
    """What becomes of a closed request of its own accord, from the surest end to none."""

    ENDED = auto()
    """It has ended."""
    HAS_LIKELY_ENDED = auto()
    """It ends at once. Nothing proves the end, and that is reported with it."""
    LAST_WORD_WAS_HEARD = auto()
    """It ends after `LAST_WORD_S` of quiet."""
    NOTHING_WAS_TO_BE_SAID = auto()
    """It ends after `NOTHING_TO_SAY_S` of quiet."""
    QUIET = auto()
    """It ends after `OWED_S` of quiet. Nothing proves the end, and that is reported with it."""
    DOUBT = auto()
    """After `OWED_S` of quiet it may be an end or a stall: the text is spoken once more, and if that ends alike, it was
    an end."""
    STALL = auto()
    """After `OWED_S` of quiet the upstream has stalled."""

    @property
    def quiet_s(self) -> float:
        """Seconds without a frame after which the verdict is carried out."""
        return _QUIET_S.get(self, OWED_S)

    @property
    def is_unconfirmed(self) -> bool:
        """True where an end of this kind is reported with the word that nothing proves it."""
        return self in (Verdict.HAS_LIKELY_ENDED, Verdict.QUIET, Verdict.DOUBT)


_QUIET_S = {
    Verdict.ENDED: 0.0,
    Verdict.HAS_LIKELY_ENDED: 0.0,
    Verdict.LAST_WORD_WAS_HEARD: LAST_WORD_S,
    Verdict.NOTHING_WAS_TO_BE_SAID: NOTHING_TO_SAY_S,
}

VERDICTS: dict[tuple[Completes, Heard], Verdict | dict[Sends, Verdict]] = {
    (Completes.NONE, Heard.NOTHING_TO_SAY): Verdict.NOTHING_WAS_TO_BE_SAID,
    (Completes.NONE, Heard.SOMETHING): Verdict.QUIET,
    (Completes.NONE, Heard.MISSING): Verdict.STALL,
    (Completes.NONE, Heard.SHORT): Verdict.STALL,
    (Completes.NONE, Heard.PLAUSIBLE): {
        Sends.UNKNOWN: Verdict.DOUBT,
        Sends.NEVER: Verdict.QUIET,
        Sends.ALWAYS: Verdict.STALL,
    },
    (Completes.NONE, Heard.LAST_WORD): Verdict.LAST_WORD_WAS_HEARD,
    (Completes.SOME, Heard.NOTHING_TO_SAY): Verdict.ENDED,
    (Completes.SOME, Heard.SOMETHING): Verdict.ENDED,
    (Completes.SOME, Heard.MISSING): Verdict.STALL,
    (Completes.SOME, Heard.SHORT): Verdict.STALL,
    (Completes.SOME, Heard.PLAUSIBLE): Verdict.QUIET,
    (Completes.SOME, Heard.LAST_WORD): Verdict.ENDED,
    (Completes.AS_USUAL, Heard.NOTHING_TO_SAY): Verdict.ENDED,
    (Completes.AS_USUAL, Heard.SOMETHING): Verdict.ENDED,
    (Completes.AS_USUAL, Heard.MISSING): Verdict.STALL,
    (Completes.AS_USUAL, Heard.SHORT): Verdict.QUIET,
    (Completes.AS_USUAL, Heard.PLAUSIBLE): Verdict.HAS_LIKELY_ENDED,
    (Completes.AS_USUAL, Heard.LAST_WORD): Verdict.ENDED,
    (Completes.ALL, Heard.NOTHING_TO_SAY): Verdict.ENDED,
    (Completes.ALL, Heard.SOMETHING): Verdict.ENDED,
    (Completes.ALL, Heard.MISSING): Verdict.STALL,
    (Completes.ALL, Heard.SHORT): Verdict.HAS_LIKELY_ENDED,
    (Completes.ALL, Heard.PLAUSIBLE): Verdict.ENDED,
    (Completes.ALL, Heard.LAST_WORD): Verdict.ENDED,
}
"""When a request ends whose closing fragment was sent. Quiet counts from the last frame, or from the closing
fragment where that was later."""


def verdict(completes: Completes, heard: Heard, sends: Sends) -> Verdict:
    """The row of `VERDICTS` for what is known of a request and of its upstream."""
    row = VERDICTS[completes, heard]
    return row if isinstance(row, Verdict) else row[sends]


def is_short(completes: Completes, heard: Heard) -> bool:
    """Whether what was heard cannot be the whole text: the upstream owes more, and the next request would be early."""
    return heard is Heard.MISSING or (heard is Heard.SHORT and completes in (Completes.NONE, Completes.SOME))


def hand_over_s(completes: Completes, heard: Heard, sends: Sends) -> float | None:
    """Seconds of quiet after which the next request may be sent while the end of this one is still to be reported.

    None: the next one waits for the report. An upstream that is sent a request while it speaks another one speaks
    them in turn, so that nothing is lost where the end was not reached yet.
    """
    if is_short(completes, heard):
        return None
    if completes is not Completes.NONE:
        return 0.0
    if heard is Heard.PLAUSIBLE and sends is Sends.ALWAYS:
        return None
    return 0.0 if heard is Heard.LAST_WORD else HAND_OVER_S


def voice_of(settings: Mapping[str, Any]) -> str:
    """Return the name of what the pace of speech with these settings depends on."""
    return f"{settings.get('model', '')}/{settings.get('voice_id', '')}/{settings.get('speed', 1.0):g}"


def quickened_by(settings: Mapping[str, Any]) -> float:
    """By how much the speed that is asked for may shorten speech; 1.0 for not at all."""
    speed: float = settings.get("speed", 1.0)
    return max(1.0, speed)


def are_alike(first_s: float, second_s: float) -> bool:
    """Whether two lengths, in seconds, can be those of the same text in a voice that speaks otherwise each time."""
    return abs(first_s - second_s) <= ALIKE_SHARE * max(first_s, second_s)


def letters_of(text: str) -> int:
    """How many letters and digits a text has: what is sure to be heard of it."""
    return sum(c.isalnum() for c in text)


def chars_of(text: str) -> int:
    """How many characters of a text take time: blanks in a row count as one, those at its edges not at all."""
    return len(" ".join(text.split()))


def possible_releases(text: str) -> int:
    """Return the most releases that a text can be cut into, if its messages came without a delay.

    Each sentence can be one, and so can each `RELEASE_CHARS` characters of a longer one. Pieces without letters and
    digits are not counted, since nothing is heard of them.
    """
    count = start = 0
    ends = [m.end() for m in _SENTENCE.finditer(text)]
    for end in (*ends, len(text)):
        piece = text[start:end].strip()
        start = end
        if letters_of(piece):
            count += -(-len(piece) // RELEASE_CHARS)
    return count


def without_last_release(text: str) -> str:
    """Return the longest beginning of a text that can have been spoken while a release of it is still to come.

    "" where the text can only be spoken in one go.
    """
    ends = [m.end() for m in _SENTENCE.finditer(text)]
    starts = [start for start in (0, *ends) if letters_of(text[start:])]
    if not starts:
        return ""
    last = text[starts[-1] :].lstrip()
    parts = -(-len(last.rstrip()) // RELEASE_CHARS)
    return text[: len(text) - len(last) + (parts - 1) * RELEASE_CHARS]


@dataclass(slots=True)
class SpokenWords:
    """How far a request's speech has come in its text, as the times of its words tell."""

    received: int = 0
    matched: int = 0
    last_end_s: float = 0.0
    _at: int = 0
    """How many words of the text lie before what is spoken next."""
    _tokens: list[str] = field(default_factory=list)
    _text_chars: int = 0

    def add(self, text: str, word: str, end_s: float) -> None:
        """Take the next word of a request whose text so far is `text`."""
        self._tokenize(text)
        self.received += 1
        self.last_end_s = max(self.last_end_s, end_s)
        spoken = [w.casefold() for w in _WORD.findall(word)]
        if not spoken:
            self.received -= 1  # a mark: nothing to be found
            return
        for at in range(self._at, min(self._at + WORD_WINDOW, len(self._tokens))):
            if self._tokens[at : at + len(spoken)] == spoken:
                self._at = at + len(spoken)
                self.matched += 1
                return

    def left(self, text: str) -> int | None:
        """How many words of the text come behind the last that was found; None where too few were found to tell."""
        if not self.matched or self.matched * 2 < self.received:
            return None
        self._tokenize(text)
        return len(self._tokens) - self._at

    def are_missing(self, text: str, audio_s: float) -> bool:
        """Whether words of the text are left that cannot be among so many seconds of audio."""
        left = self.left(text)
        return left is not None and left > 1 and audio_s < self.last_end_s + UNTIMED_S

    def _tokenize(self, text: str) -> None:
        if len(text) != self._text_chars:
            self._text_chars = len(text)
            self._tokens = [w.casefold() for w in _WORD.findall(text)]


@dataclass(slots=True)
class Pace:
    """Playing time of a character of one voice at one speed, in seconds. Marks and blanks count: they are pauses."""

    requests: int = 0
    mean: float = 0.0
    fastest: float = 0.0
    slowest: float = 0.0

    def add(self, seconds: float) -> None:
        """Count a request that was heard whole."""
        self.requests += 1
        self.mean += (seconds - self.mean) / self.requests
        self.fastest = min(self.fastest or seconds, seconds)
        self.slowest = max(self.slowest, seconds)

    def least(self, *, strict: bool) -> float | None:
        """Below this a text was not heard whole; None as long as too little is known. See `Habits.least_s`."""
        if self.requests < PACE_REQUESTS:
            return None
        mean, fastest = STRICT_SHARES if strict else SHARES
        return min(self.mean * mean, self.fastest * fastest)

    def most(self) -> float | None:
        """Above this a text was heard whole, and more; None as long as too little is known."""
        if self.requests < PACE_REQUESTS:
            return None
        mean, slowest = STRICT_SHARES
        return max(self.mean / mean, self.slowest / slowest)


class PerRequest(Enum):
    """How many `complete` frames an upstream sends for a request that can have several releases."""

    ONE = auto()
    """One, whatever it was released in."""
    EACH = auto()
    """One for each of its possible releases."""


@dataclass(slots=True)
class Custom:
    """What was seen of one kind of request: those that were sent whole, or those that were streamed."""

    per_request: PerRequest | None = None
    """What the latest requests showed; None after one that showed neither."""
    seen: int = 0
    """How many in a row showed that."""
    sure: int = 0
    """How many of them showed it without doubt."""
    longest: int = 0
    """Letters and digits of the longest of them: nothing was seen of longer texts."""
    is_certain: bool = False
    """Whether it is known of the upstream beforehand, not only seen."""

    def see(self, per_request: PerRequest | None, letters: int, *, is_sure: bool) -> None:
        """Count a request that ended, and whose `complete` frames were these."""
        if per_request is not self.per_request or per_request is None:
            self.per_request = per_request
            self.seen = self.sure = self.longest = 0
            self.is_certain = False
        if per_request is not None:
            self.seen += 1
            self.sure += is_sure
            self.longest = max(self.longest, letters)

    def forget(self) -> None:
        """Start anew: what was learnt was wrong."""
        self.see(None, 0, is_sure=False)

    def sends_one(self, letters: int) -> bool:
        """Whether the first `complete` of a request with so many letters and digits is its last."""
        known = self.sure >= LEARN_REQUESTS or self.seen >= LEARN_BLIND_REQUESTS
        return self.per_request is PerRequest.ONE and known and letters <= self.longest


@dataclass(slots=True)
class Habits:
    """What was learnt of one upstream over all of its connections; the sessions of a gateway share it.

    Times are those of the gateway's loop.
    """

    sends_complete: bool | None = None
    """Whether it sends `complete`; None: not known."""
    complete_late_s: float = 0.0
    """The longest that a `complete` was seen to come after the last audio, in seconds."""
    ends_without: int = 0
    """Requests in a row that the next one followed without a `complete` between."""
    doubted_at: float | None = None
    """When a `complete` was missed for the first time since the last one came."""
    whole: Custom = field(default_factory=Custom)
    """Requests that were sent in one message."""
    streamed: Custom = field(default_factory=Custom)
    """Requests that were sent in several."""
    paces: OrderedDict[str, Pace] = field(default_factory=OrderedDict)
    """By voice; the newest last."""
    out_of_turn_at: float | None = None
    """When it was seen not to speak two requests in turn; None: not seen."""
    disobeyed_at: float | None = None
    """When it was seen to go on with what was cancelled; None: not seen."""

    @property
    def sends(self) -> Sends:
        if self.sends_complete is None:
            return Sends.UNKNOWN
        return Sends.ALWAYS if self.sends_complete else Sends.NEVER

    def custom(self, *, streamed: bool) -> Custom:
        """What was seen of requests of a kind."""
        return self.streamed if streamed else self.whole

    def completed(self, late_s: float) -> None:
        """Note that a `complete` came, `late_s` seconds after the last audio."""
        self.complete_late_s = max(self.complete_late_s, min(late_s, LONGEST_LATE_S))
        self.sends_complete = True
        self.doubted_at = None
        self.ends_without = 0

    def ended_without(self) -> None:
        """Note that the next request was spoken, and no `complete` came for the one before."""
        self.ends_without += 1
        if self.ends_without >= LEARN_REQUESTS and self.sends_complete is None:
            self.sends_complete = False

    def ended_alike(self) -> None:
        """Note that a text was spoken twice, ended by quiet at the same length, and never had a `complete`."""
        if self.sends_complete is None:
            self.sends_complete = False

    def missed_complete(self, began_at: float, now: float) -> None:
        """Note that no `complete` came for a request that may be whole: a stall, or they are not sent any more.

        Many requests stall at once, and none of them may be taken for whole because of the others: only one that
        began after the first, with no `complete` seen since, settles it.
        """
        if self.doubted_at is None:
            self.doubted_at = now
        elif began_at >= self.doubted_at:
            self.sends_complete = self.doubted_at = None

    def late_audio(self, voice: str, *, streamed: bool) -> None:
        """Note that audio came for a request that was reported as completed: what led to that report is unlearnt."""
        self.custom(streamed=streamed).forget()
        self.paces.pop(voice, None)
        if self.sends_complete is False:
            self.sends_complete = None

    def spoken_whole(self, voice: str, chars: int, audio_s: float) -> None:
        """Note the length of a request that was heard whole, in seconds. `voice` names all that its pace depends on."""
        if chars < PACE_CHARS or audio_s <= 0:
            return
        pace = self.paces.setdefault(voice, Pace())
        self.paces.move_to_end(voice)
        pace.add(audio_s / chars)
        while len(self.paces) > REMEMBERED_VOICES:
            self.paces.popitem(last=False)

    def least_s(
        self, voice: str, text: str, letters: int, quickened: float, *, prior: bool, strict: bool
    ) -> float:
        """Seconds below which a text with so many letters and digits was not heard whole, as far as is known.

        `quickened`: by how much the speed that was asked for may shorten them, 1.0 for not at all. `prior`: take
        what no voice passes where the pace of this one was not learnt. `strict`: there is another reason to doubt.
        """
        pace = self.paces.get(voice)
        least = pace.least(strict=strict) if pace is not None else None
        if least is not None:
            return chars_of(text) * least
        return letters * PRIOR_S_PER_LETTER / quickened if prior else 0.0

    def is_more_than(self, voice: str, text: str, audio_s: float) -> bool:
        """True once the pace of the voice is known, and so many seconds are more than a text can take."""
        pace = self.paces.get(voice)
        most = pace.most() if pace is not None else None
        return most is not None and audio_s > chars_of(text) * most

    def speaks_in_turn(self, now: float) -> bool:
        """Whether a request may be sent while the one before it may still be spoken."""
        return self.out_of_turn_at is None or now >= self.out_of_turn_at + FORGET_S

    def obeys_cancel(self, now: float) -> bool:
        """Whether a cancel may be expected to stop the speech."""
        return self.disobeyed_at is None or now >= self.disobeyed_at + FORGET_S


def habits_of_waves_local() -> Habits:
    """What is known beforehand of the embedded upstream, as the gateway starts it: one `complete` for a request."""

    def one() -> Custom:
        sure = LEARN_REQUESTS
        return Custom(PerRequest.ONE, seen=sure, sure=sure, longest=1 << 31, is_certain=True)

    return Habits(sends_complete=True, whole=one(), streamed=one())
