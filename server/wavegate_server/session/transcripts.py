"""What the connections of a session say, as one transcript of its audio: segments, turns, voices. No loop, no
clock: the time comes in, events go out by `emit`.

- Everything is placed on the session's timeline by the connection that said it.
- A segment goes on over whichever connection; a final closes it, and moves `covered` on: the place up to which no
  audio has to be sent again.
- A connection that follows another hears some audio again. What finals said of it already is left out.
- Each `finalize` gets exactly one final: the one that it caused, or an empty one after some quiet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from wavegate_server.session import transcription_events as out
from wavegate_server.session.boundaries import Boundary
from wavegate_server.session.events import Upstream
from wavegate_server.session.ledger import SettingsLedger
from wavegate_server.session.replay import AudioHistory, Frame
from wavegate_server.session.segments import Segments
from wavegate_server.session.stt_link import SttLink
from wavegate_server.session.timeline import SessionClock
from wavegate_server.session.transcription_events import FinalTrigger
from wavegate_server.waves import stt

QUIET_S = 1.0
"""Quiet after a `finalize` with nothing to say that answers it (contract, `Finalize`)."""
SLOW_ANSWER_S = 3.0
"""The same where a voice or a sound came since the last final: the answer may only be slow."""
CUT_WORD_S = 0.3
"""A word that ends this close to where the audio was cut off may have been cut with it."""


@dataclass(slots=True, eq=False)
class Turn:
    """A `finalize` that waits for its final."""

    finalize_id: str
    position: int
    index: int
    """Number of the first frame behind it."""
    received_at: float
    own: bool = False
    """The gateway's, before it replaces the connection for other settings."""
    asked: SttLink | None = None
    """The connection that was asked."""
    asked_at: float = 0.0
    heard_by: float = 0.0
    """When the audio before it may be expected to have been heard."""
    position_s: float = 0.0
    """Where it stands in that connection's audio."""
    read_at: float | None = None
    """When the upstream had read it; None while it has not."""


@dataclass(frozen=True, slots=True)
class _Said:
    """A transcript on the session's timeline."""

    text: str
    words: tuple[out.Word, ...]
    sentences: tuple[out.Sentence, ...]
    end: int | None
    """The sample where its words end; None where none has times."""
    event: stt.TranscriptReceived | None
    """What the upstream said, for all that needs no place."""
    repeated: bool = False
    """Whether all of it was said in finals before."""


_NOTHING = _Said("", (), (), None, None)


class Transcripts:
    """The transcript of one session."""

    def __init__(
        self,
        clock: SessionClock,
        history: AudioHistory,
        ledger: SettingsLedger,
        emit: Callable[[Any], None],
        upstream: Callable[[], Upstream],
        wall_clock: Callable[[], float],
    ) -> None:
        """`upstream`: who serves the session now. `wall_clock`: seconds since the Unix epoch."""
        self._clock = clock
        self._history = history
        self._ledger = ledger
        self._emit = emit
        self._upstream = upstream
        self._wall_clock = wall_clock
        self.covered = 0
        """Up to here nothing has to be sent again: finals cover it, or nobody spoke."""
        self.finalized = 0
        self.finals = 0
        """How many there were."""
        self.complete = False
        """Whether the last transcript is out."""
        self._segments = Segments()
        self._most_chars = 0
        """Characters of the longest text that a connection said behind `covered`."""
        self._hanging: tuple[out.Word, ...] = ()
        """Words of the open segment."""
        self._last_final = ""
        self._turns: deque[Turn] = deque()
        self._voice_on = False
        self._voice_at = 0

    def __repr__(self) -> str:
        return f"<Transcripts covered={self.covered} {self._segments!r} turns={len(self._turns)}>"

    @property
    def open_text(self) -> str:
        """What was said since the last final, as far as it is known."""
        return self._segments.text

    def is_speech_over(self, link: SttLink) -> bool:
        """Whether a voice stopped after the last word that was heard."""
        if link.speech_ended_at is None or not self._hanging:
            return False
        return self._clock.seconds(link.speech_ended_at) >= _middle(self._hanging[-1])

    # -- turns --------------------------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether a turn waits for its final."""
        return bool(self._turns)

    def add(self, turn: Turn) -> None:
        self._turns.append(turn)

    def drop_own(self) -> None:
        """Forget the finalize that the gateway asked of a connection which is gone, or has answered."""
        for turn in [t for t in self._turns if t.own]:
            self._turns.remove(turn)

    def next_turn(self, link: SttLink) -> Turn | None:
        """The turn that this connection has to be asked for now."""
        for turn in self._turns:
            if turn.asked is not link:
                return turn if turn.index <= link.cursor and _is_before(turn, link.leaving) else None
        return None

    def quiet_turn(self, link: SttLink) -> tuple[Turn, float] | None:
        """The oldest turn without an answer, and when quiet alone answers it."""
        if self.open_text or link.protocol.close_sent:
            return None  # there is something to say, and the upstream owes it
        turn = next((t for t in self._turns if t.asked is link), None)
        if turn is None:
            return None
        since = max(turn.asked_at, link.last_frame_at)
        if turn.read_at is None:
            # One that has not come to the question is not quiet about it. Some never answer a ping.
            return turn, max(since, turn.heard_by) + stt.OWED_S
        since = max(since, turn.read_at)
        if link.heard_since_final:
            return turn, max(since, turn.heard_by) + SLOW_ANSWER_S
        return turn, since + QUIET_S

    def ask(self, turn: Turn, link: SttLink, now: float) -> None:
        """A connection is being asked for this turn."""
        turn.asked, turn.asked_at, turn.read_at = link, now, None
        turn.heard_by = now + link.backlog.behind_s(now)
        turn.position_s = link.backlog.sent_s

    def read(self, link: SttLink, now: float) -> None:
        """The upstream proved that it has read more."""
        proved_s = max(link.backlog.read_s, link.backlog.heard_s)
        for turn in self._turns:
            if turn.asked is link and turn.read_at is None and turn.position_s <= proved_s:
                turn.read_at = now

    def answer_quiet(self, link: SttLink, now: float) -> None:
        """Answer the turns that had their quiet."""
        while (due := self.quiet_turn(link)) is not None and now >= due[1]:
            self._answer_empty(due[0], now)

    # -- what a connection says ---------------------------------------------------------------------------------

    def voice(self, link: SttLink, started: bool, at_s: float) -> None:
        """Tell the caller of a voice once, whatever the connections say of the same audio again."""
        link.timeline.notice(at_s)
        position = link.timeline.to_session(at_s)
        link.hears(position)
        shown = bool(self._ledger.settings.get("voice_activity_events"))
        if started:
            link.speaking = True
            link.heard_since_final = True
            if self._voice_on and link.replayed_until <= position and link.speech_ended_at is None:
                # The connection that began it never said where it ended, and this one heard no rest of it.
                self._voice_on = False
                if shown:
                    self._emit(out.VoiceEnded(self._clock.seconds(link.timeline.base)))
            if self._voice_on or position < self._voice_at:
                return
        else:
            link.said_end_of_voice(position, link.last_frame_at)
            if not self._voice_on:
                return
        self._voice_on = started
        self._voice_at = max(self._voice_at, position)
        if shown:
            offset = self._clock.seconds(self._voice_at)
            self._emit(out.VoiceStarted(offset) if started else out.VoiceEnded(offset))

    def said(self, link: SttLink, event: stt.TranscriptReceived, now: float) -> bool:
        """Take what a connection said, for now or for good. Return whether some of it is new: no connection said as
        much of the audio that finals do not cover, or a final covers more of it than before."""
        said, leaving = self._place(link, event), link.leaving
        covered, is_longer = self.covered, len(said.text) > self._most_chars
        self._most_chars = max(self._most_chars, len(said.text))
        is_last = event.is_last and link.protocol.close_sent
        turn = None
        if event.is_final and event.from_finalize and not is_last:
            turn = self._answered_turn(link, said, now)
        if leaving is not None:
            said = self._up_to(leaving, link, said)
        if leaving is not None and (is_last or (turn is not None and turn.own)):
            self._on_left(link, leaving, said, now)
        elif is_last:
            self._on_last(link, said, now)
        elif event.is_final:
            self._on_final(link, said, event, turn, now)
        elif said.text or (self.open_text and not said.repeated):
            self._on_partial(link, said, now)
        if self.covered > covered:
            self._most_chars = 0
        return is_longer or self.covered > covered

    def end(self, link: SttLink | None, now: float) -> None:
        """Nothing more comes, and nothing was left to say: the last answers."""
        self._on_last(link, _NOTHING, now)

    def owes(self, link: SttLink) -> bool:
        """Whether a connection that is to be left may have something to say of the audio that it was sent."""
        return (
            bool(self.open_text)
            or link.timeline.position > self.covered
            or any(t.asked is link for t in self._turns)
        )

    def ask_all(self, link: SttLink, boundary: Boundary, now: float) -> None:
        """Note that a connection which is to be left is asked for all that it has to say."""
        turn = Turn("", boundary.position, boundary.index, now, own=True, asked=link, asked_at=now)
        self._turns.append(turn)

    def leave(self, link: SttLink, boundary: Boundary, now: float) -> None:
        """Note that a connection which is to be left has nothing more to say: what it was sent is final."""
        self._on_left(link, boundary, _NOTHING, now)

    def lost(self, position: int, now: float) -> None:
        """The audio before `position` is gone: words of the open segment that lie there will not be heard again, so
        they are final as they are."""
        limit = self._clock.seconds(position)
        words = tuple(w for w in self._hanging if _middle(w) <= limit)
        if words:
            end = self._position(words[-1].end_s)
            self._say_final(
                None, _Said(_joined(words), words, (), end, None), FinalTrigger.UNSPECIFIED, None, now
            )
        self.covered = max(self.covered, position)

    def fell_out(self, link: SttLink, frame: Frame, now: float) -> None:
        """Audio is no longer kept. Where the upstream heard no voice in it, nothing is lost by that."""
        heard = frame.end <= link.must_be_heard(now)
        if heard and not link.speaking and not self.open_text and frame.start <= self.covered:
            self.covered = max(self.covered, frame.end)

    # -- inside: places -----------------------------------------------------------------------------------------

    def _place(self, link: SttLink, event: stt.TranscriptReceived) -> _Said:
        """A transcript on the session's timeline, without what finals of an earlier connection said."""
        seconds, to_session = self._clock.seconds, link.timeline.to_session
        if event.words:
            link.timeline.notice(event.words[-1].end_s)
        words = tuple(
            out.Word(
                w.text,
                seconds(to_session(w.start_s)),
                seconds(to_session(w.end_s)),
                w.confidence,
                w.speaker,
                w.speaker_confidence,
            )
            for w in event.words
        )
        sentences = tuple(
            out.Sentence(s.text, seconds(to_session(s.start_s)), seconds(to_session(s.end_s)), s.speaker)
            for s in event.sentences
        )
        text, repeated = event.text, False
        if link.repeats_before:
            limit = seconds(link.repeats_before)
            fresh = tuple(w for w in words if _middle(w) > limit)
            if len(fresh) < len(words):
                words, text, repeated = fresh, _joined(fresh), not fresh
                sentences = tuple(s for s in sentences if _middle(s) > limit)
            elif not words and event.is_final and text.strip() == self._last_final and link.may_repeat:
                text, repeated = "", True
        if event.is_final and event.words:
            if event.words == link.final_words:
                words, sentences, text, repeated = (), (), "", True  # the same frame once more
            link.final_words = event.words
        if event.words:
            link.hears(to_session(event.words[-1].end_s))
        end = to_session(event.words[-1].end_s) if words else None
        return _Said(text, words, sentences, end, event, repeated)

    def _position(self, seconds: float) -> int:
        """The sample at an offset of the session."""
        return self._clock.samples(seconds - self._clock.offset_s)

    # -- inside: partials and finals ----------------------------------------------------------------------------

    def _on_partial(self, link: SttLink, said: _Said, now: float) -> None:
        stable = self._segments.saw(said.text)
        self._hanging = said.words
        if not self._ledger.settings.get("interim_results", True):
            return
        end = link.heard_position if said.end is None else said.end
        self._emit(self._transcribed(said, self._segments.show(), end, now, stable_prefix_length=stable))

    def _on_final(
        self, link: SttLink, said: _Said, event: stt.TranscriptReceived, turn: Turn | None, now: float
    ) -> None:
        """`turn`: the one that the final answers."""
        trigger = FinalTrigger.UNSPECIFIED
        if event.from_finalize:
            trigger = FinalTrigger.CLIENT_FINALIZE
        elif event.speech_final or self._ended_by_silence(link, said):
            trigger = FinalTrigger.ENDPOINT
        elif link.leaving is not None and link.protocol.close_sent:
            trigger = FinalTrigger.RECONNECT
        # An empty final closes an open segment, unless it is empty because it said nothing new.
        closes = bool(self.open_text) and not said.repeated
        if said.text or turn is not None or closes:
            self._say_final(link, said, trigger, turn, now)
        link.said_final(self.covered, now)

    def _on_left(self, link: SttLink, boundary: Boundary, said: _Said, now: float) -> None:
        """A connection that is to be left said its last: what it was sent up to the boundary is final, and answers
        the turns that lie before it."""
        link.deaf = True
        self.drop_own()
        turns = [t for t in self._turns if _is_before(t, boundary)]
        chosen = self._turn_of(said, turns) if turns and said.text else None
        for turn in turns[: turns.index(chosen)] if chosen is not None else turns:
            self._answer_empty(turn, now)
        if said.text or self.open_text:
            trigger = FinalTrigger.RECONNECT if chosen is None else FinalTrigger.CLIENT_FINALIZE
            if chosen is not None:
                self._turns.remove(chosen)
            if said.end is None and said.text:
                # Without word times nobody can tell which of it lies before the boundary, so all of it does.
                said = replace(said, end=link.timeline.position)
            self._say_final(link, said, trigger, chosen, now)
        for turn in turns[turns.index(chosen) + 1 :] if chosen is not None else ():
            self._answer_empty(turn, now)
        self.covered = max(self.covered, boundary.position)
        self.finalized = max(self.finalized, self.covered)
        self._history.begin_at(self.covered)
        self.covered = max(self.covered, self._history.start)  # a decoder may begin a little later

    def _up_to(self, boundary: Boundary, link: SttLink, said: _Said) -> _Said:
        """What was said before a boundary, where the connection was sent more than that. The words behind it are
        heard on the next connection, whole."""
        limit = max(boundary.position, self.covered)
        sent = link.timeline.position
        if sent <= limit or not said.words:
            return said
        words = said.words
        if boundary.spares_last_word:
            last = words[-1]
            is_cut = last.end_s > self._clock.seconds(sent) - CUT_WORD_S
            if is_cut and link.protocol.close_sent and self._position(last.start_s) >= limit:
                words = words[:-1]
        else:
            words = tuple(w for w in words if self._position(w.start_s) < limit)
        if len(words) == len(said.words):
            return said
        end = self._position(words[-1].end_s) if words else None
        until = words[-1].end_s if words else 0.0
        sentences = tuple(s for s in said.sentences if s.end_s <= until)
        return replace(
            said, text=_joined(words), words=words, sentences=sentences, end=end, repeated=not words
        )

    def _ended_by_silence(self, link: SttLink, said: _Said) -> bool:
        """Whether a voice stopped behind the last word of a final: the proof that it is an end of speech."""
        if link.speech_ended_at is None or not said.words:
            return False
        return self._clock.seconds(link.speech_ended_at) >= _middle(said.words[-1])

    def _answered_turn(self, link: SttLink, said: _Said, now: float) -> Turn | None:
        """The turn that a final answers; those before it, which the upstream passed over, had nothing to say."""
        asked = [t for t in self._turns if t.asked is link and _is_before(t, link.leaving)]
        if not asked:
            return None
        chosen = self._turn_of(said, asked) or asked[0]
        for turn in asked[: asked.index(chosen)]:
            self._answer_empty(turn, now)
        self._turns.remove(chosen)
        return chosen

    def _turn_of(self, said: _Said, turns: list[Turn]) -> Turn | None:
        """The first turn that ends behind the beginning of what was said; None where it was said after all."""
        if not said.words:
            return turns[0]
        middle = _middle(said.words[0])
        return next((t for t in turns if self._clock.seconds(t.position) >= middle), None)

    def _answer_empty(self, turn: Turn, now: float, *, is_last: bool = False) -> None:
        """The final of a turn with nothing to say."""
        self._turns.remove(turn)
        if turn.own:
            return
        self.finals += 1
        self._emit(
            self._transcribed(
                _NOTHING,
                self._segments.aside(),
                turn.position,
                now,
                is_final=True,
                is_last=is_last,
                trigger=FinalTrigger.CLIENT_FINALIZE,
                turn=turn,
            )
        )

    def _on_last(self, link: SttLink | None, said: _Said, now: float) -> None:
        """Answer everything that is open, the last answer being the last transcript."""
        self.complete = True
        self.drop_own()
        turns = list(self._turns)
        chosen = self._turn_of(said, turns) if turns else None
        before = turns[: turns.index(chosen)] if chosen is not None else turns
        behind = turns[len(before) + 1 :]
        has_audio = bool(self._history.end)
        for turn in before:
            self._answer_empty(turn, now)
        if chosen is not None:
            self._turns.remove(chosen)
        if has_audio or self.open_text or chosen is not None:
            trigger = FinalTrigger.END if chosen is None else FinalTrigger.CLIENT_FINALIZE
            self._say_final(link, said, trigger, chosen, now, is_last=has_audio and not behind)
        for turn in behind:
            self._answer_empty(turn, now, is_last=has_audio and turn is behind[-1])
        self.finalized = self.covered = self._history.end

    def _say_final(
        self,
        link: SttLink | None,
        said: _Said,
        trigger: FinalTrigger,
        turn: Turn | None,
        now: float,
        *,
        is_last: bool = False,
    ) -> None:
        """Close the open segment and let go of the audio that is behind."""
        end = self._end_of(link, said, turn)
        self._emit(
            self._transcribed(
                said,
                self._segments.close(said.text),
                end,
                now,
                is_final=True,
                is_last=is_last,
                trigger=trigger,
                turn=turn,
                stable_prefix_length=len(said.text),
            )
        )
        self._hanging = ()
        self.finals += 1
        if said.text:
            self._last_final = said.text.strip()
        reach = end if turn is None else max(end, turn.position)
        if link is not None:
            reach = min(reach, max(0, link.timeline.position))
        self.finalized = max(self.finalized, reach)
        self.covered = max(self.covered, reach)
        self._history.cover(self.covered)

    def _end_of(self, link: SttLink | None, said: _Said, turn: Turn | None) -> int:
        """How far a final reaches."""
        if said.end is not None:
            return said.end
        if turn is not None:
            return turn.position
        if link is None or not said.text:
            return self.covered
        if link.speech_ended_at is not None and link.speech_ended_at > self.covered:
            return link.speech_ended_at  # no word has times: where the voice stopped is the next best
        return max(self.covered, link.heard_position)

    def _transcribed(
        self,
        said: _Said,
        shown: tuple[str, int],
        end: int,
        now: float,
        *,
        is_final: bool = False,
        is_last: bool = False,
        trigger: FinalTrigger = FinalTrigger.UNSPECIFIED,
        turn: Turn | None = None,
        stable_prefix_length: int = 0,
    ) -> out.Transcribed:
        settings, seconds = self._ledger.settings, self._clock.seconds
        frame, event = self._history.at(end), said.event
        audio_latency_s = now - frame.received_at if frame is not None else None
        capture_latency_s = None
        if frame is not None and frame.capture_epoch_s is not None and audio_latency_s is not None:
            captured_at = frame.capture_epoch_s + self._clock.duration_s(end)
            # Nothing is recorded after it has arrived: there the caller's clock is ahead of ours.
            capture_latency_s = max(self._wall_clock() - captured_at, audio_latency_s)
        start_s = seconds(min(end, self.covered) if said.text else end)
        if said.words:
            start_s = said.words[0].start_s
        segment_id, revision = shown
        return out.Transcribed(
            segment_id,
            revision,
            said.text,
            is_final,
            start_s,
            seconds(end),
            is_last=is_last,
            final_trigger=trigger,
            finalize_id=turn.finalize_id if turn is not None else "",
            words=said.words if settings.get("word_timings") else (),
            sentences=said.sentences if settings.get("sentence_timings") else (),
            languages=event.languages if event is not None else (),
            stable_prefix_length=stable_prefix_length,
            full_text=self._segments.full_text if is_final and settings.get("full_transcript") else "",
            redacted_entities=event.redacted_entities if event is not None else (),
            settings_revision=self._ledger.revision,
            upstream=self._upstream(),
            speech_final=event.speech_final if event is not None else False,
            extra=event.extra if event is not None else {},
            finalize_latency_s=now - turn.received_at if turn is not None else None,
            audio_latency_s=audio_latency_s,
            capture_latency_s=capture_latency_s,
        )


def _is_before(turn: Turn, boundary: Boundary | None) -> bool:
    """Whether a turn ends no later than a boundary. One behind it is the next connection's to answer."""
    return boundary is None or turn.position <= boundary.position


def _middle(piece: out.Word | out.Sentence) -> float:
    return (piece.start_s + piece.end_s) / 2


def _joined(words: tuple[out.Word, ...]) -> str:
    return " ".join(w.text for w in words)
