"""Nothing lost, nothing twice: connections drop and settings change at any moment, on virtual time.

The upstream understands a word only where it hears every one of its samples, once and in order
(`tests.support.recognizer`). So the transcript proves which audio was heard.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from wavegate_server.session.events import (
    AckState,
    ApplyPolicy,
    ConnectionChanged,
    Mechanism,
    SettingsAcknowledged,
)
from wavegate_server.session.transcription_events import Transcribed

from tests.support.listening import Caller
from tests.support.recognizer import (
    GAP_SAMPLES,
    RATE_HZ,
    WORD_SAMPLES,
    Habits,
    Recognizer,
    silence,
    speech,
    word,
)
from tests.support.seeds import seeds
from tests.support.transport import FakeDialer, FakeTransport
from tests.support.virtual_time import run_virtual

CHANGES: list[dict[str, Any]] = [
    {"language_code": "hi"},
    {"language_code": "en"},
    {"punctuation": False},
    {"punctuation": True},
    {"interim_results": False},
    {"interim_results": True},
    {"max_words": 5, "word_timings": True},
    {"end_of_utterance_timeout": 0.5},
]


class Conversation:
    """One random conversation and what came of it."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        rng = self.rng
        self.habits = Habits(
            latency_s=rng.choice([0.0, 0.02, 0.15, 0.6]),
            endpoint_s=rng.choice([0.3, 0.4, 0.8, None]),
            max_words=rng.choice([3, 8, 1000]),
            answers_empty_finalize=rng.random() < 0.5,
            last_apart=rng.random() < 0.5,
            speed=rng.choice([0.0, 0.0, 1.2, 3.0]),
            pongs=rng.choice(["behind", "at_once"]),
        )
        self.caller: Caller | None = None
        self.drops = self.finals = 0
        self.dialer = FakeDialer(peer=self.peer, handshake_s=rng.choice([0.0, 0.05, 0.7]))
        self.words = 0
        self.expected: list[tuple[str, int]] = []
        """Each word and its first sample."""
        self.position = 0
        self.updates: list[str] = []
        self.finalizes: list[str] = []

    def peer(self, transport: FakeTransport) -> Recognizer:
        recognizer = Recognizer(transport, self.habits)
        if self.rng.random() < 0.8:
            limit = self.rng.randrange(1, 60_000)
            code = self.rng.choice([None, None, 1001, 1011, 1006])

            def drop(peer: Recognizer) -> None:
                if len(peer.pcm) >= limit and not transport.gone and self.may_drop():
                    transport.drop(code)

            recognizer.on_audio = drop
        return recognizer

    def may_drop(self) -> bool:
        """More than three failures without a final in between would rightly end the session."""
        assert self.caller is not None
        # What the session has said, though the caller may not have read it yet.
        said = self.caller.session._transcripts._segments._finals
        if (finals := len(said)) > self.finals:
            self.finals, self.drops = finals, 0
        self.drops += 1
        return self.drops <= 3

    def next_audio(self) -> bytes:
        count = self.rng.randrange(0, 6)
        numbers = range(self.words, self.words + count)
        for number in numbers:
            self.expected.append((word(number), self.position))
            self.position += WORD_SAMPLES + GAP_SAMPLES
        self.words += count
        pause = silence(self.rng.choice([0.0, 0.05, 0.25, 0.5, 1.5]))
        self.position += len(pause) // 2
        return speech(list(numbers)) + pause

    async def run(self) -> Caller:
        rng = self.rng
        full = rng.random() < 0.5
        self.caller = caller = Caller(self.dialer, {"word_timings": True, "full_transcript": full})
        for _ in range(rng.randrange(3, 14)):
            audio = self.next_audio()
            size = rng.choice([1, 33, 160, 320, 1000, 4096, 4097, 10_000])
            size = size if size > 1 or len(audio) < 6000 else 7
            await caller.send(audio, size, paced_hz=rng.choice([0, 0, RATE_HZ, 4 * RATE_HZ]))
            if rng.random() < 0.4:
                update = f"u{len(self.updates)}"
                self.updates.append(update)
                caller.update(update, rng.choice(list(ApplyPolicy)[:2]), **rng.choice(CHANGES))
            if rng.random() < 0.3:
                finalize = f"f{len(self.finalizes)}"
                self.finalizes.append(finalize)
                caller.finalize(finalize)
            if rng.random() < 0.2:
                await asyncio.sleep(rng.choice([0.3, 3.0, 17.0]))
        ended = await caller.end()
        assert ended.error is None, ended.error
        return caller


@pytest.mark.parametrize("seed", seeds(40))
def test_no_word_is_lost_or_repeated(seed: int) -> None:
    conversation = Conversation(seed)
    caller = run_virtual(conversation.run())

    finals = caller.finals
    assert caller.text.split() == [text for text, _ in conversation.expected]

    words = [w for t in finals for w in t.words]
    assert [w.text for w in words] == [text for text, _ in conversation.expected]
    for heard, (text, start) in zip(words, conversation.expected, strict=True):
        assert heard.start_s == pytest.approx(start / RATE_HZ, abs=1e-9), text
        assert heard.end_s == pytest.approx((start + WORD_SAMPLES) / RATE_HZ, abs=1e-9), text

    check_transcripts(caller, has_audio=conversation.position > 0)
    check_acks(caller, conversation.updates)
    answered = Counter(t.finalize_id for t in finals if t.finalize_id)
    assert answered == Counter(conversation.finalizes)
    changes = caller.all(ConnectionChanged)
    assert all(not c.lost_audio_s for c in changes)
    connected = [c for c in changes if c.state.value == "CONNECTED"]
    assert len(connected) - 1 == caller.session.reconnect_count
    assert all(t.gone for t in conversation.dialer.transports)


def check_transcripts(caller: Caller, *, has_audio: bool) -> None:
    """What is true of the transcripts of every session."""
    transcripts = caller.all(Transcribed)
    closed: set[str] = set()
    revisions: dict[str, int] = {}
    shown: list[str] = []
    for transcript in transcripts:
        assert transcript.segment_id not in closed, "a final was rewritten"
        assert transcript.segment_revision == revisions.get(transcript.segment_id, 0) + 1
        revisions[transcript.segment_id] = transcript.segment_revision
        assert transcript.start_s <= transcript.end_s
        assert 0 <= transcript.stable_prefix_length <= len(transcript.text)
        if transcript.is_final:
            closed.add(transcript.segment_id)
            if transcript.text:
                shown.append(transcript.text)
            if transcript.full_text:
                assert transcript.full_text == " ".join(shown)
            assert transcript.stable_prefix_length == len(transcript.text)
    assert set(revisions) == closed, "a partial was left hanging"
    last = [t for t in transcripts if t.is_last]
    assert last == (transcripts[-1:] if has_audio else [])


def check_acks(caller: Caller, updates: list[str]) -> None:
    """Each delta: one QUEUED at most, then one other."""
    for update in updates:
        states = [a.state for a in caller.acks(update)]
        assert states, update
        assert states[-1].terminal
        assert states[:-1] in ([], [AckState.QUEUED]), (update, states)
    revisions = [
        a.settings_revision
        for a in caller.all(SettingsAcknowledged)
        if a.state is AckState.APPLIED and a.mechanism is not Mechanism.NO_CHANGE
    ]
    assert revisions == sorted(revisions)
