"""An utterance that is reported completed was heard to its end, whole and once, whatever kind the upstream is.

The upstream (`tests.support.any_upstream`) is of any kind that is known: `complete` once a turn, a release, a message
or never, late, twice; ids echoed or not; words timed or not; pauses, half-open and cut sockets, garbage at any frame.
The caller says whole texts and tokens, flushes, changes its voice's speed, interrupts, waits or does not. Two sessions
run one after the other, so that the second has what the first one learnt.

Held against what was said:

- completed: every word, in order, once (after a `discontinuity` the word that was cut begins again);
- failed or cancelled: a beginning of it, and the account says how long a beginning;
- every utterance ends once, and the session ends;
- nothing fails where one thing went wrong, or none.

One thing cannot be told: whether more would come from an upstream that times no words, sends no `complete` within the
time of a stall, and is silent for that time. Such an upstream makes only shorter pauses here. One that does send
`complete`, and times no words, makes one such pause at most: silent at the same place twice, it would have ended. Where
such a pause comes behind a `complete` that may have been the last, the report of the end says that nothing proves it.
"""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, note, settings
from hypothesis import strategies as st
from wavegate_server.audio import AudioFormat, Encoding
from wavegate_server.session.context import UpstreamTarget
from wavegate_server.session.events import SessionEnded
from wavegate_server.session.pool import Upstreams
from wavegate_server.session.synthesis_events import (
    AudioProduced,
    UtteranceCancelled,
    UtteranceCompleted,
    UtteranceFailed,
)
from wavegate_server.waves.tts import Mode

from tests.support.any_upstream import RATE_HZ, SPEEDS, AnyUpstream, Dialect, Misfortune, Trouble, read_back
from tests.support.seeds import repetitions
from tests.support.speaking import Caller, Ending, id_of
from tests.support.transport import FakeDialer
from tests.support.virtual_time import run_virtual

STALL_S = 5.0
"""How long an upstream that owes audio may say nothing (docs, "Stalls")."""
MENDED = 1
"""So many misfortunes are always mended. Each may cost two of three tries: its own, and one to make sure of an end."""
LIMIT_S = 1500.0
"""No script takes longer; a session that does hangs."""
FORMAT = AudioFormat(Encoding.LINEAR16, RATE_HZ)
SYLLABLES = ("ka", "lo", "mi", "ne", "ru", "sta", "ve", "zo", "i", "prum")


# -- what a caller does ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Say:
    """Text of so many words: at once, or word by word with a delay between. `lengths`: of its sentences, in words."""

    lengths: tuple[int, ...]
    token_s: float | None
    end: bool
    is_new: bool


@dataclass(frozen=True)
class Wait:
    seconds: float


@dataclass(frozen=True)
class UntilEnded:
    """Go on when all that was ended by its caller has been reported, as in a conversation."""


@dataclass(frozen=True)
class Flush:
    pass


@dataclass(frozen=True)
class Change:
    speed: float
    at_once: bool


@dataclass(frozen=True)
class Cancel:
    heard_s: float | None
    newest: bool
    """Only the utterance that was begun last, not all."""


Step = Say | Wait | UntilEnded | Flush | Change | Cancel


@dataclass(frozen=True)
class Script:
    """Two sessions."""

    sessions: tuple[tuple[Step, ...], tuple[Step, ...]]


SAYS = st.builds(
    Say,
    lengths=st.lists(st.sampled_from([1, 1, 2, 3, 5, 8, 14]), min_size=1, max_size=5).map(tuple),
    token_s=st.sampled_from([None, None, 0.0, 0.02, 0.3]),
    end=st.sampled_from([True, True, True, False]),
    is_new=st.booleans(),
)
STEPS = st.one_of(
    SAYS,
    SAYS,
    SAYS,
    st.builds(Wait, st.sampled_from([0.05, 0.5, 1.0, 2.5, 4.0, 7.0, 30.0])),
    st.just(UntilEnded()),
    st.just(Flush()),
    st.builds(Change, st.sampled_from(SPEEDS), st.booleans()),
    st.builds(Cancel, st.none() | st.floats(0, 5), st.booleans()),
)
SCRIPTS = st.tuples(*[st.lists(STEPS, min_size=1, max_size=8).map(tuple)] * 2).map(Script)

DIALECTS = st.builds(
    Dialect,
    completes=st.sampled_from(["turn", "release", "request", "none"]),
    complete_late_s=st.sampled_from([0.0, 0.0, 0.6, 1.5, 4.0, 8.0]),
    complete_twice=st.booleans(),
    closes=st.sampled_from([False, False, False, True]),
    echoes=st.booleans(),
    words=st.sampled_from(["none", "restart", "run on"]),
    bare_words=st.booleans(),
    obeys=st.sampled_from([True, True, False]),
    speaks_marks=st.booleans(),
    char_s=st.sampled_from([0.05, 0.065, 0.09]),
    generation=st.sampled_from([1.0, 3.0, 30.0]),
    first_audio_s=st.sampled_from([0.0, 0.1, 0.7, 3.0]),
)
MISFORTUNES = st.one_of(
    st.builds(
        Misfortune,
        st.integers(0, 150),
        st.just("pause"),
        st.sampled_from([0.1, 0.7, 0.9, 1.5, 2.5, 4.0, 4.8, 6.0, 12.0, 20.0]),
    ),
    st.builds(
        Misfortune,
        st.integers(0, 150),
        st.sampled_from(["half open", "cut", "close", "array", "binary", "no base64"]),
    ),
)
TROUBLES = st.lists(MISFORTUNES, max_size=6, unique_by=lambda m: m.at_frame)


# -- what came of it ------------------------------------------------------------------------------------------------


def word(number: int) -> str:
    """A word that no other number has: so a repetition, a hole or a wrong order cannot pass for the text."""
    text = SYLLABLES[number % 10]
    while number >= 10:
        number //= 10
        text += SYLLABLES[number % 10]
    return text


def letters(text: str) -> str:
    """What is sure to be heard of a text. Marks on their own may rightly be silent, and blanks cannot be heard."""
    return "".join(c for c in text if c.isalnum())


@dataclass
class Life:
    """One session's caller: plays its script and holds what it hears against what it said."""

    caller: Caller
    dialect: Dialect
    trouble: Trouble
    first_word: int
    has_changed: bool = False
    """Whether the upstream was another one before."""
    texts: dict[str, str] = field(default_factory=dict)
    """What was said, by utterance."""
    closed: set[str] = field(default_factory=set)
    """Utterances whose text has ended."""
    words: int = 0

    async def play(self, steps: tuple[Step, ...]) -> None:
        for step in steps:
            match step:
                case Say():
                    await self.say(step)
                case Wait():
                    await asyncio.sleep(step.seconds)
                case UntilEnded():
                    if self.closed:
                        await self.caller.until(object, len(self.closed), self.is_awaited)
                case Flush():
                    self.caller.flush()
                case Change():
                    self.caller.update(speed=step.speed, at_once=step.at_once)
                case Cancel():
                    newest = next(reversed(self.texts), "") if step.newest else ""
                    self.closed |= {newest} if newest else set(self.texts)
                    self.caller.cancel(newest, heard_s=step.heard_s)
        self.caller.end_session()
        await self.caller.ended()

    async def say(self, step: Say) -> None:
        name = next(reversed(self.texts), "")
        if step.is_new or not name or name in self.closed or name in self.endings():
            self.closed |= set(self.texts)
            name = f"u{len(self.texts)}"
            self.texts[name] = ""
        numbers = iter(range(self.first_word + self.words, 10**9))
        pieces = []
        for length in step.lengths:
            self.words += length
            pieces += [word(next(numbers)) for _ in range(length)]
            pieces[-1] += "."
        tokens = [w + " " for w in pieces]
        if step.token_s is None:
            tokens = ["".join(tokens)]
        for place, token in enumerate(tokens):
            if name in self.endings():
                return
            is_last = step.end and place == len(tokens) - 1
            self.texts[name] += token
            self.caller.say(token, name, end=is_last)
            if is_last:
                self.closed.add(name)
            if step.token_s is not None:
                await asyncio.sleep(step.token_s)

    def is_awaited(self, event: object) -> bool:
        """True for the end of an utterance whose text has ended."""
        return isinstance(event, Ending) and id_of(event) in self.closed

    def endings(self) -> dict[str, Any]:
        return {id_of(e): e for e in self.caller.heard if isinstance(e, Ending)}

    # -- the rules ----------------------------------------------------------------------------------------------

    def check(self) -> None:
        caller = self.caller
        ended = caller.of(SessionEnded)[0]
        assert ended.error is None, ended
        told = [id_of(e) for e in caller.heard if isinstance(e, Ending)]
        assert sorted(told) == sorted(self.texts), "each utterance ends, once"
        for name, ending in self.endings().items():
            after = caller.heard[caller.heard.index(ending) :]
            assert not [e for e in after if isinstance(e, AudioProduced) and id_of(e) == name], (
                "no audio after it"
            )
            chunks = caller.of(AudioProduced, name)
            assert [c.chunk_index for c in chunks] == list(range(len(chunks)))
            samples = sum(len(c.audio) // 2 for c in chunks)
            match ending:
                case UtteranceCompleted():
                    self.check_heard(name, chunks, ending)
                case UtteranceCancelled():
                    assert ending.spoken_text + ending.remaining_text == self.texts[name]
                    self.check_heard(name, chunks, None)
                case UtteranceFailed():
                    assert abs(ending.audio_sent_s - samples / RATE_HZ) < 1e-6
                    assert self.has_changed or len(self.trouble.struck) > MENDED, (
                        f"{name} failed without need: {ending.error}"
                    )
                    self.check_heard(name, chunks, None)

    def check_heard(
        self, name: str, chunks: list[AudioProduced], completed: UtteranceCompleted | None
    ) -> None:
        """The audio of an utterance is a beginning of its text; with `completed`, all of it."""
        said = letters(self.texts[name])
        stretches: list[bytes] = []
        for chunk in chunks:
            if chunk.discontinuity or not stretches:
                stretches.append(b"")
            stretches[-1] += chunk.audio
        at = 0
        cut = ""
        for number, pcm in enumerate(stretches):
            text, cut = read_back(pcm, self.dialect.char_s)
            heard = letters(text)
            begins = [0] if number == 0 else word_starts(self.texts[name], at)
            reached = [i + len(heard) for i in begins if said.startswith(heard, i)]
            assert reached, f"{name}, stretch {number} after {said[:at]!r}: {text!r}"
            at = max(reached)
        if completed is None:
            return
        missing = said[at:] or letters(cut)
        fell_silent = any(m.seconds >= STALL_S for _, m in self.trouble.struck)
        assert not missing or (completed.is_unconfirmed and (self.has_changed or fell_silent)), (
            f"{name} is reported completed ({completed.source}); heard {said[:at]!r}, missing {missing!r}; "
            f"went wrong: {self.trouble.struck}"
        )


def shows_its_end(dialect: Dialect, words: bool) -> bool:
    """Whether there is something on the wire, other than silence, that tells the end of speech from a pause in it."""
    in_time = dialect.completes != "none" and dialect.complete_late_s < STALL_S
    return in_time or (words and dialect.words != "none")


def word_starts(text: str, cut_at: int) -> list[int]:
    """Where speech that was cut after so many letters may go on: at the word that was cut, or the one behind it."""
    starts = [0]
    for one in text.split():
        starts.append(starts[-1] + len(letters(one)))
    before = [i for i in starts if i < cut_at]
    return [*before[-1:], *(i for i in starts if i == cut_at)]


async def live(
    script: Script,
    dialects: tuple[Dialect, Dialect],
    mode: Mode,
    misfortunes: list[Misfortune],
    words: bool,
) -> None:
    """Play a script; the second session's upstream may have other ways, which the first one's taught nothing of."""
    dialect = dialects[1]
    if not (words and dialect.words != "none"):
        silences = sorted((m for m in misfortunes if m.seconds >= STALL_S), key=lambda m: m.at_frame)
        misfortunes = [m for m in misfortunes if m not in silences[1:]]
    if not shows_its_end(dialect, words):
        misfortunes = [m for m in misfortunes if m.what != "half open" and m.seconds < STALL_S]
    trouble = Trouble.of(misfortunes)
    try:
        await live_twice(script, dialects, mode, trouble, words)
    finally:
        await trouble.over()


async def live_twice(
    script: Script, dialects: tuple[Dialect, Dialect], mode: Mode, trouble: Trouble, words: bool
) -> None:
    upstreams = Upstreams(UpstreamTarget("ws://upstream", "a-key", tts_mode=mode))
    said = 0
    for number, (steps, dialect) in enumerate(zip(script.sessions, dialects, strict=True)):
        caller = Caller(
            FakeDialer(functools.partial(AnyUpstream, dialect=dialect, trouble=trouble)),
            {"word_timings": words},
            FORMAT,
            upstreams=upstreams,
            session_id=f"s-{number}",
            tts_mode=mode,
            idle_timeout_s=10**6,
        )
        life = Life(caller, dialect, trouble, said, has_changed=dialect != dialects[0])
        try:
            async with caller, asyncio.timeout(LIMIT_S):
                await life.play(steps)
            life.check()
        except TimeoutError:
            raise AssertionError(f"session {number} hangs: {caller.story()}") from None
        except AssertionError:
            note(f"session {number}: {life.texts}")
            note("\n".join(f"{at:8.3f} {line}" for at, line in timed(caller)))
            raise
        said += life.words
    await upstreams.aclose()


def timed(caller: Caller) -> list[tuple[float, str]]:
    """The story of a session with times; of audio the first chunk and the last."""
    from tests.support.speaking import short

    lines: list[tuple[float, str]] = []
    for at, happened in zip(caller.heard_at, caller.heard, strict=True):
        line = short(happened)
        if line.startswith("audio") and len(lines) > 1 and lines[-1][1] == lines[-2][1] == line:
            lines.pop()
        lines.append((at, line))
    return lines


@settings(max_examples=repetitions(150, 600))
@given(
    script=SCRIPTS,
    dialect=DIALECTS,
    mode=st.sampled_from(list(Mode)),
    misfortunes=TROUBLES,
    words=st.booleans(),
)
def test_what_is_completed_was_heard_whole_and_once(
    script: Script, dialect: Dialect, mode: Mode, misfortunes: list[Misfortune], words: bool
) -> None:
    run_virtual(live(script, (dialect, dialect), mode, misfortunes, words))


@settings(max_examples=repetitions(100, 400))
@given(
    script=SCRIPTS,
    dialect=DIALECTS,
    before=st.sampled_from(["turn", "release", "request"]),
    after=st.sampled_from(["turn", "release", "request"]),
    mode=st.sampled_from(list(Mode)),
    words=st.booleans(),
)
def test_what_an_upstream_does_otherwise_than_before_is_never_confirmed_and_cut(
    script: Script, dialect: Dialect, before: Any, after: Any, mode: Mode, words: bool
) -> None:
    """An upstream is rolled out anew: what was learnt of the old one cuts nothing off that is called confirmed."""
    dialects = (replace(dialect, completes=before), replace(dialect, completes=after))
    run_virtual(live(script, dialects, mode, [], words))
