"""Speech to text by pocketsphinx, with its bundled US-English model.

`SphinxRecognizer` is the parent's side; `load` and `Recognition` run in the warm process and its children (see
`workers`), one child a stream: pocketsphinx holds the interpreter lock while it decodes, and a decoder that is
forked shares its 90 MB of models.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from waves_local.engine import (
    HeardWord,
    Hypothesis,
    RecognitionEvent,
    RecognitionRequest,
    RecognitionStream,
    VoiceActivity,
)
from waves_local.speech.vad import DEFAULT_MIN_SPEECH_S, DEFAULT_THRESHOLD, HANGOVER_S, SpeechDetector
from waves_local.speech.workers import Channel, Connection, WarmProcess

_OPEN, _OPENED, _AUDIO, _FINALIZE, _EVENTS = b"O", b"o", b"A", b"F", b"E"

_PIECE_S = 0.5
"""Audio is handed to the child in pieces of at most this much, so that closing takes effect soon."""

_MODEL_RATE_HZ = 16000
_FRAME_SAMPLES = 320
"""20 ms: what the voice activity detection judges at a time."""
_FRAME_S = _FRAME_SAMPLES / _MODEL_RATE_HZ
_DECODER_FRAME_S = 0.01
_VAD_STRICT = 3
_PREROLL_FRAMES = 20
"""400 ms from before speech was certain: its beginning, and a breath for the decoder to settle on."""
_PARTIAL_FRAMES = 10
"""A partial hypothesis each 200 ms of audio, where it changed."""
_SHORTEST_HANGOVER_S = 0.1
"""Less would end an utterance in the middle of a word."""
_LONG_UTTERANCE_S = 30.0
"""After this much without an end, a final is cut at the next gap between words: decoding costs memory."""
_LONGEST_UTTERANCE_S = 60.0

# Where the decoder's running mean of the cepstra begins. It takes seconds to find its own value, and until then the
# model takes the sound of the room for the sound of the words: these are what clear speech comes to, close to a
# microphone and over the telephone. (Errors on synthetic speech are half of those with the library's default.)
_WIDEBAND_MEAN = "54,3,-1,5,0,-12,6,-6,5,-4,1"
_TELEPHONE_MEAN = "55,4,-5,6,0,-13,8,-11,4,-1,-3,5,-6"
_TELEPHONE_MIRROR = 0.25
"""The share of the telephone's band that is mirrored into the one above it, whose emptiness the model would take
for a sound. (An eighth more of the words of a real call are understood.)"""

_KEYWORD_MARK = "~keyword"
_MAX_INTENSIFIER = 4.0
_ALTERNATIVE = re.compile(r"\(\d+\)$")


class SphinxRecognizer:
    """The recogniser of the engine. May be used by many tasks, and event loops, at once.

    Any language is accepted and heard as English. Keywords get a higher probability where the dictionary knows
    how they are pronounced, and are written the way the caller wrote them; others are ignored.
    """

    def __init__(self) -> None:
        self._process = WarmProcess(__name__)
        self._process.start()

    async def open(self, request: RecognitionRequest) -> RecognitionStream:
        """Begin a stream. Raises `ValueError` for a sample rate that is not positive, `SpeechProcessError`."""
        if request.sample_rate_hz <= 0:
            raise ValueError(f"A sample rate must be positive, not {request.sample_rate_hz} Hz.")
        connection = await self._process.connect()
        try:
            await connection.send(_OPEN, json.dumps(dataclasses.asdict(request)).encode())
            await connection.receive()
        except BaseException:
            connection.close()
            raise
        return _Stream(connection, request.sample_rate_hz)

    def close(self) -> None:
        """Stop the process behind it. Open streams live on."""
        self._process.close()


class _Stream:
    """A stream in the parent. Cancelling a call closes it: what the child made of the audio is then unknown."""

    def __init__(self, connection: Connection, sample_rate_hz: int) -> None:
        self._connection = connection
        self._piece_bytes = 2 * max(1, int(sample_rate_hz * _PIECE_S))

    async def accept(self, pcm: bytes) -> Sequence[RecognitionEvent]:
        events: list[RecognitionEvent] = []
        for begin in range(0, len(pcm), self._piece_bytes):
            events += await self._ask(_AUDIO, pcm[begin : begin + self._piece_bytes])
        return events

    async def finalize(self) -> Sequence[RecognitionEvent]:
        return await self._ask(_FINALIZE)

    async def close(self) -> None:
        self._connection.close()

    async def _ask(self, kind: bytes, payload: bytes = b"") -> list[RecognitionEvent]:
        try:
            await self._connection.send(kind, payload)
            _kind, reply = await self._connection.receive()
        except BaseException:
            self._connection.close()
            raise
        return [_event(fields) for fields in json.loads(reply)]


def _event(fields: dict[str, Any]) -> RecognitionEvent:
    if "speaking" in fields:
        return VoiceActivity(**fields)
    return Hypothesis(**fields | {"words": tuple(HeardWord(**word) for word in fields["words"])})


def load() -> Callable[[Channel], None]:
    """In the warm process: a decoder with its models, that children may use."""
    import pocketsphinx  # noqa: PLC0415 - only in the process that decodes

    decoder = pocketsphinx.Decoder(loglevel="FATAL")
    vad = pocketsphinx.Vad(_VAD_STRICT, _MODEL_RATE_HZ, _FRAME_S)

    def serve(channel: Channel) -> None:
        recognition: Recognition | None = None
        while (frame := channel.read()) is not None:
            kind, payload = frame
            if kind == _OPEN:
                fields = json.loads(payload)
                keywords = tuple((text, boost) for text, boost in fields.pop("keywords"))
                recognition = Recognition(decoder, vad, RecognitionRequest(**fields, keywords=keywords))
                channel.write(_OPENED)
                continue
            assert recognition is not None
            events = recognition.finalize() if kind == _FINALIZE else recognition.accept(payload)
            channel.write(_EVENTS, json.dumps([dataclasses.asdict(event) for event in events]).encode())

    return serve


class Recognition:
    """What one stream makes of its audio. Blocking; offsets are seconds of the audio as it came in.

    The decoder runs only where there is speech: it begins a little before the detector is certain, and ends by
    silence, by `finalize`, or when an utterance has become very long.
    """

    def __init__(self, decoder: Any, vad: Any, request: RecognitionRequest) -> None:
        self._decoder = decoder
        self._vad = vad
        self._rate_hz = request.sample_rate_hz
        self._end_of_utterance_s = request.end_of_utterance_s if request.endpointing else math.inf
        self._detector = SpeechDetector(
            _FRAME_S,
            DEFAULT_THRESHOLD if request.vad_threshold is None else request.vad_threshold,
            DEFAULT_MIN_SPEECH_S if request.vad_min_speech_s is None else request.vad_min_speech_s,
            # The end of speech is known no later than the utterance that it ends.
            max(min(HANGOVER_S, self._end_of_utterance_s), _SHORTEST_HANGOVER_S),
        )
        self._telephone = request.sample_rate_hz < _MODEL_RATE_HZ
        decoder.set_cmn(_TELEPHONE_MEAN if self._telephone else _WIDEBAND_MEAN)
        self._written = _boost_keywords(decoder, request.keywords)
        self._samples_in = 0
        self._pending = b""
        self._preroll: deque[bytes] = deque(maxlen=_PREROLL_FRAMES)
        self._utterance_start_s: float | None = None
        """Where the decoder's time begins; None while it rests."""
        self._partial: tuple[str, ...] = ()
        self._frames_to_partial = 0
        self._restart_clock()

    def accept(self, pcm: bytes) -> list[RecognitionEvent]:
        """Hear samples; say what became known."""
        self._samples_in += len(pcm) // 2
        self._pending += self._resample(pcm)
        events: list[RecognitionEvent] = []
        size = 2 * _FRAME_SAMPLES
        whole = len(self._pending) // size * size
        for begin in range(0, whole, size):
            self._frames += 1
            self._hear(self._pending[begin : begin + size], events)
        self._pending = self._pending[whole:]
        return events

    def finalize(self) -> list[RecognitionEvent]:
        """End the utterance at the last sample that came in. One final hypothesis, maybe without words."""
        events: list[RecognitionEvent] = []
        tail = self._pending + self._resample(b"", last=True)
        size = 2 * _FRAME_SAMPLES
        while len(tail) >= size:
            self._frames += 1
            self._hear(tail[:size], events)
            tail = tail[size:]
        if self._utterance_start_s is not None and tail:
            self._decode(tail)
        end_s = self._samples_in / self._rate_hz
        # An endpoint in the very last frames has said everything already; its event comes first.
        events.append(Hypothesis(self._end_utterance(), is_final=True, end_s=end_s))
        self._restart_clock()
        return events

    def _restart_clock(self) -> None:
        """Count 16 kHz samples from here: flushing the resampler has rounded them to whole frames of input."""
        self._epoch_s = self._samples_in / self._rate_hz
        self._frames = 0
        self._pending = b""
        self._preroll.clear()
        self._resampler = (
            None
            if self._rate_hz == _MODEL_RATE_HZ
            else soxr.ResampleStream(self._rate_hz, _MODEL_RATE_HZ, num_channels=1, dtype="float32")
        )

    def _resample(self, pcm: bytes, last: bool = False) -> bytes:
        if self._resampler is None:
            return pcm
        # In floats, because its integers are dithered at random, and equal audio shall make equal words.
        samples = np.frombuffer(pcm, "<i2").astype(np.float32)
        return _pcm(self._resampler.resample_chunk(samples, last=last))

    def _hear(self, frame: bytes, events: list[RecognitionEvent]) -> None:
        now_s = self._epoch_s + self._frames * _FRAME_S
        activity = self._detector.frame(self._vad.is_speech(frame), now_s)
        if activity is not None:
            events.append(activity)
        if self._utterance_start_s is None:
            self._preroll.append(frame)
            # After `finalize` the detector may still be waiting whether silence lasts: that is no utterance.
            if self._detector.speaking and self._detector.silence_s(now_s) < _FRAME_S / 2:
                self._begin_utterance(now_s)
            return
        self._decode(frame)
        silence_s = self._detector.silence_s(now_s)
        length_s = now_s - self._utterance_start_s
        if not self._detector.speaking and silence_s > self._end_of_utterance_s - _FRAME_S / 2:
            self._cut(now_s, events, by_endpoint=True)
        elif length_s > _LONGEST_UTTERANCE_S or (length_s > _LONG_UTTERANCE_S and silence_s > 2 * _FRAME_S):
            self._cut(now_s, events, by_endpoint=False)
        else:
            self._report_partial(now_s, events)

    def _begin_utterance(self, now_s: float) -> None:
        self._utterance_start_s = now_s - len(self._preroll) * _FRAME_S
        self._partial, self._frames_to_partial = (), _PARTIAL_FRAMES
        self._decoder.start_utt()
        self._decode(b"".join(self._preroll))
        self._preroll.clear()

    def _decode(self, pcm: bytes) -> None:
        if self._telephone:
            # Every second sample with its sign changed is the spectrum mirrored about 4 kHz.
            samples = np.frombuffer(pcm, "<i2").astype(np.float32)
            samples[0::2] *= 1 + _TELEPHONE_MIRROR
            samples[1::2] *= 1 - _TELEPHONE_MIRROR
            pcm = _pcm(samples)
        self._decoder.process_raw(pcm)

    def _cut(self, now_s: float, events: list[RecognitionEvent], by_endpoint: bool) -> None:
        words = self._end_utterance()
        # A cough is not worth a word, but it may have looked like one.
        if words or self._partial:
            events.append(Hypothesis(words, is_final=True, end_s=now_s, by_endpoint=by_endpoint))

    def _end_utterance(self) -> tuple[HeardWord, ...]:
        if self._utterance_start_s is None:
            return ()
        self._decoder.end_utt()
        words = self._words(final=True)
        self._utterance_start_s = None
        return words

    def _report_partial(self, now_s: float, events: list[RecognitionEvent]) -> None:
        self._frames_to_partial -= 1
        if self._frames_to_partial > 0:
            return
        self._frames_to_partial = _PARTIAL_FRAMES
        words = self._words(final=False)
        texts = tuple(word.text for word in words)
        if words and texts != self._partial:
            self._partial = texts
            events.append(Hypothesis(words, is_final=False, end_s=now_s))

    def _words(self, final: bool) -> tuple[HeardWord, ...]:
        assert self._utterance_start_s is not None
        words = []
        for segment in self._decoder.seg() or ():
            text = _ALTERNATIVE.sub("", segment.word)
            if text.startswith(("<", "[", "++")):
                continue  # silence and noise
            words.append(
                HeardWord(
                    self._written.get(text, text),
                    round(self._utterance_start_s + segment.start_frame * _DECODER_FRAME_S, 3),
                    round(self._utterance_start_s + (segment.end_frame + 1) * _DECODER_FRAME_S, 3),
                    # The posterior is known when the lattice is complete; before, there is no confidence to report.
                    round(min(max(segment.prob, 0.0), 1.0), 3) if final else 0.0,
                )
            )
        return tuple(words)


def _pcm(samples: NDArray[np.float32]) -> bytes:
    return np.clip(np.rint(samples), -32768, 32767).astype("<i2").tobytes()


def _boost_keywords(decoder: Any, keywords: Sequence[tuple[str, float]]) -> dict[str, str]:
    """Add likelier doubles of words to the language model; returns how each double is written.

    The model's own entries cannot be changed, but a second word with the same pronunciation can be added. At
    intensifier 1 it is ten times as likely as the average word, and with each further 1 ten times more.
    """
    phones: dict[str, str] = {}
    written: dict[str, str] = {}
    model = decoder.get_lm()
    for phrase, intensifier in keywords:
        for word in phrase.split():
            double = f"{word.lower()}{_KEYWORD_MARK}"
            pronounced = decoder.lookup_word(word.lower())
            if pronounced is None or double in written or intensifier <= 0:
                continue
            model.add_word(double, 10 ** min(intensifier, _MAX_INTENSIFIER))
            phones[double] = pronounced
            written[double] = word
    for i, (double, pronounced) in enumerate(phones.items(), 1):
        # The search takes up all of them at once, with the last: that takes 0.1 s.
        decoder.add_word(double, pronounced, i == len(phones))
    return written
