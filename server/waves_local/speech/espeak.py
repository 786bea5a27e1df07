"""Text to speech by espeak-ng, through its C library.

`EspeakSynthesizer` is the parent's side; `load` and `Espeak` run in the warm process (see `workers`). A request
travels as one frame, audio and word times come back as they are made: espeak-ng is some hundred times faster
than speech, so the connection's back-pressure is what paces it.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Sequence

import numpy as np
import soxr
from numpy.typing import NDArray

from waves_local.engine import SpokenAudio, SpokenWord, Voice, VoiceRequest
from waves_local.speech.text import NON_LATIN, WordClock, language_of, runs
from waves_local.speech.voices import VOICES, SpokenVoice, espeak_language
from waves_local.speech.workers import Channel, SpeechProcessError, WarmProcess

_REQUEST, _AUDIO, _WORD, _DONE = b"Q", b"A", b"W", b"D"

_CHUNK_MS = 20
"""The audio that is resampled at a time. The resampler hands it on in pieces of 25 to 70 ms."""
_WORDS_PER_MINUTE = 165
"""At speed 1: the rate at which the recogniser makes the fewest mistakes."""
_GAIN = 0.7
"""Klatt voices peak near full scale, which resampling could overshoot."""
_NOISE = 1e-3
"""Standard deviation, of full scale. A recogniser trained on microphones stumbles over digital silence."""

# From espeak-ng's speak_lib.h.
_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_PHONEME_EVENTS = 0x0001
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_ENDPAUSE = 0x1000
_POS_CHARACTER = 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_EVENT_LIST_TERMINATED, _EVENT_WORD, _EVENT_END, _EVENT_PHONEME = 0, 1, 5, 7
_CONTINUE, _ABORT = 0, 1


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # in characters, from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),  # from the start of this call of espeak_Synth
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_SynthCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)

Floats = NDArray[np.float32]
Emit = Callable[[bytes, bytes], None]


class EspeakSynthesizer:
    """The synthesizer of the engine. May be used by many tasks, and event loops, at once."""

    def __init__(self) -> None:
        self._process = WarmProcess(__name__)
        self._process.start()

    def voices(self) -> Sequence[Voice]:
        return [spoken.listed for spoken in VOICES.values()]

    async def synthesize(self, request: VoiceRequest) -> AsyncIterator[SpokenAudio | SpokenWord]:
        """Speak the text; a blank one has no audio. Audio comes in pieces of about 20 to 40 ms (at 8 kHz 70).

        Equal requests make equal samples. A reader that stops reading stops the work after about two seconds of
        audio; closing the iterator ends it.

        Raises `ValueError` for an unknown voice or a sample rate that is not positive, `SpeechProcessError` when
        the work fails.
        """
        voice = VOICES.get(request.voice_id)
        if voice is None:
            raise ValueError(f"There is no voice {request.voice_id!r}; the catalogue lists those there are.")
        if request.sample_rate_hz <= 0:
            raise ValueError(f"A sample rate must be positive, not {request.sample_rate_hz} Hz.")
        if not request.text.strip():
            return
        connection = await self._process.connect()
        try:
            await connection.send(_REQUEST, json.dumps(dataclasses.asdict(request)).encode())
            while True:
                kind, payload = await connection.receive()
                if kind == _AUDIO:
                    yield SpokenAudio(payload)
                elif kind == _WORD and voice.listed.word_timestamps:
                    yield SpokenWord(*json.loads(payload))
                elif kind == _DONE:
                    return
        finally:
            connection.close()

    def close(self) -> None:
        """Stop the process behind it. What is being spoken is spoken to its end."""
        self._process.close()


def load() -> Callable[[Channel], None]:
    """In the warm process: espeak-ng, ready to speak."""
    espeak = Espeak()
    # Dictionaries, fonts of numbers and code pages that every request needs are read now, not in each child.
    espeak.speak(VoiceRequest("Ready.", "magnus"), lambda _kind, _payload: None)

    def serve(channel: Channel) -> None:
        frame = channel.read()
        if frame is not None:
            espeak.speak(VoiceRequest(**json.loads(frame[1])), channel.write)
            channel.write(_DONE)

    return serve


class Espeak:
    """The library. There is one in a process, and it speaks one request at a time."""

    def __init__(self) -> None:
        import espeakng_loader  # noqa: PLC0415 - only in the process that speaks

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library.espeak_Synth.argtypes = (
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        )
        self._library.espeak_ng_SetRandSeed.argtypes = (ctypes.c_long,)
        self.sample_rate_hz: int = self._library.espeak_Initialize(
            _OUTPUT_SYNCHRONOUS,
            0,  # its own buffer size: 60 ms
            espeakng_loader.get_data_path().encode(),
            _INITIALIZE_PHONEME_EVENTS | _INITIALIZE_DONT_EXIT,
        )
        if self.sample_rate_hz <= 0:
            raise SpeechProcessError(
                "espeak-ng cannot read its data; reinstall it: pip install --force-reinstall espeakng-loader"
            )
        self._library.espeak_ng_SetRandSeed(1)
        # The library keeps a bare pointer: the callback object must live as long.
        self._callback = _SynthCallback(self._on_audio)
        self._library.espeak_SetSynthCallback(self._callback)
        self._run: _RunInProgress | None = None

    def speak(self, request: VoiceRequest, emit: Emit) -> None:
        """Emit the audio and the words of a request. What `emit` raises ends the work and is raised again."""
        voice = VOICES[request.voice_id]
        output = _Output(self.sample_rate_hz, request.sample_rate_hz, emit)
        clock = WordClock(request.text)
        language = _language(request, voice)
        numbers = None if request.number_language in {None, "auto"} else request.number_language
        pieces = runs(request.text, language, numbers, request.math_notation)
        for i, piece in enumerate(pieces):
            self._set_voice(voice, piece.language, request.speed)
            # A sentence is followed by a pause, so that what is spoken next may follow at once.
            last = i == len(pieces) - 1
            flags = _CHARS_UTF8 | (_ENDPAUSE if last and _ends_sentence(piece.spoken) else 0)
            spoken = piece.spoken.encode(errors="replace") + b"\0"
            self._run = _RunInProgress(piece.source, output, clock, output.samples_in)
            status = self._library.espeak_Synth(spoken, len(spoken), 0, _POS_CHARACTER, 0, flags, None, None)
            failure, self._run = self._run.failure, None
            if failure is not None:
                raise failure
            if status != 0:
                raise SpeechProcessError(f"espeak-ng refused the text with status {status}.")
        output.words(clock.end(output.samples_in / self.sample_rate_hz))
        output.finish()

    def _set_voice(self, voice: SpokenVoice, language: str, speed: float) -> None:
        name = f"{espeak_language(language, voice)}+{voice.variant}"
        if self._library.espeak_SetVoiceByName(name.encode()) != 0:
            raise SpeechProcessError(f"espeak-ng has no voice {name}.")
        # Choosing a voice resets these.
        self._library.espeak_SetParameter(_RATE, round(_WORDS_PER_MINUTE * min(max(speed, 0.5), 2.0)), 0)
        self._library.espeak_SetParameter(_PITCH, voice.pitch, 0)
        self._library.espeak_SetParameter(_RANGE, voice.pitch_range, 0)

    def _on_audio(
        self, audio: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[_Event]
    ) -> int:
        run = self._run
        assert run is not None
        try:
            i = 0
            while events[i].type != _EVENT_LIST_TERMINATED:
                run.report(events[i], self.sample_rate_hz)
                i += 1
            if count > 0:
                run.output.audio(np.ctypeslib.as_array(audio, (count,)))
        except BaseException as error:  # the caller is C code: it cannot pass an exception on
            run.failure = error
            return _ABORT
        return _CONTINUE


class _RunInProgress:
    """What the callback needs to know about the call that it belongs to."""

    def __init__(self, source: tuple[int, ...], output: _Output, clock: WordClock, first_sample: int) -> None:
        self._source = source
        self._clock = clock
        self._first_sample = first_sample
        self.output = output
        self.failure: BaseException | None = None

    def report(self, event: _Event, sample_rate_hz: int) -> None:
        at_s = (self._first_sample + event.sample) / sample_rate_hz
        if event.type == _EVENT_WORD:
            index = min(max(event.text_position - 1, 0), len(self._source) - 1)
            self.output.words(self._clock.word(self._source[index], at_s))
        elif event.type == _EVENT_END or (event.type == _EVENT_PHONEME and event.id.string in {b"_", b"_:"}):
            self._clock.pause(at_s)


class _Output:
    """From espeak-ng's samples to what was asked for: gain, noise, sample rate, frames."""

    def __init__(self, from_hz: int, to_hz: int, emit: Emit) -> None:
        self._emit = emit
        self._noise = np.random.default_rng(1)  # seeded: equal requests make equal samples
        self._resampler = (
            None if from_hz == to_hz else soxr.ResampleStream(from_hz, to_hz, num_channels=1, dtype="float32")
        )
        self._chunk_samples = from_hz * _CHUNK_MS // 1000
        self.samples_in = 0

    def audio(self, samples: NDArray[np.int16]) -> None:
        self.samples_in += len(samples)
        for begin in range(0, len(samples), self._chunk_samples):
            self._chunk(samples[begin : begin + self._chunk_samples])

    def _chunk(self, samples: NDArray[np.int16]) -> None:
        floats = samples.astype(np.float32) * (_GAIN / 32768)
        floats += self._noise.standard_normal(len(samples), np.float32) * np.float32(_NOISE)
        self._send(floats, last=False)

    def words(self, words: list[SpokenWord]) -> None:
        for word in words:
            times = json.dumps([word.text, round(word.start_s, 4), round(word.end_s, 4)])
            self._emit(_WORD, times.encode())

    def finish(self) -> None:
        """Send what the resampler still holds."""
        self._send(np.zeros(0, np.float32), last=True)

    def _send(self, floats: Floats, last: bool) -> None:
        if self._resampler is not None:
            floats = self._resampler.resample_chunk(floats, last=last)
        if len(floats):
            pcm = np.clip(np.rint(floats * 32768), -32768, 32767).astype("<i2")
            self._emit(_AUDIO, pcm.tobytes())


def _language(request: VoiceRequest, voice: SpokenVoice) -> str:
    if request.language not in {None, "", "auto"}:
        assert request.language is not None
        return request.language
    if request.language is None and request.number_language not in {None, "", "auto"}:
        # "If you omit language, this value also becomes the synthesis language."
        assert request.number_language is not None
        return request.number_language
    # Where a voice of, say, Hindi meets Latin letters, they are English.
    return language_of(request.text) or ("en" if voice.language in NON_LATIN else voice.language)


def _ends_sentence(text: str) -> bool:
    return text.rstrip().rstrip("\"'”’)]»").endswith((".", "!", "?", "…", ":", "।", "。", "！", "？"))
