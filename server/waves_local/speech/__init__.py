"""The engine that really speaks and listens: espeak-ng and pocketsphinx, offline, by pip alone.

    engine = load_engine()
    async for piece in engine.synthesizer.synthesize(VoiceRequest("Hello, world.", "magnus")):
        ...

Importing this package raises `ImportError`, with what to type, where neither engine is installed. One alone does its
half: requests for the other half are refused, with the reason.

How it works
------------
espeak-ng keeps its state in global variables, and pocketsphinx holds the interpreter lock while it decodes,
so neither may run in the process that serves sockets. Each library is loaded once, in a process of its own
that forks a child for each request or stream (`workers`). A fork takes about 2 ms, shares the loaded models,
starts from the same state every time (the same request makes the same samples), and its crash hurts nobody
else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec

from waves_local.engine import (
    Engine,
    RecognitionRequest,
    RecognitionStream,
    SpokenAudio,
    SpokenWord,
    Voice,
    VoiceRequest,
)

CURE = (
    "in a checkout `make speech` installs it or says what it lacks; elsewhere: pip install 'wavegate[speech]'"
)

_has_espeak, _has_sphinx = (find_spec(name) is not None for name in ("espeakng_loader", "pocketsphinx"))
if not (_has_espeak or _has_sphinx):
    raise ImportError(
        "The speech engine needs espeakng_loader and pocketsphinx, which the optional extra brings: "
        "pip install 'wavegate[speech]' (in a checkout: make speech)"
    )

from waves_local.speech.espeak import EspeakSynthesizer  # noqa: E402 - only once an engine is known to be there
from waves_local.speech.sphinx import SphinxRecognizer  # noqa: E402
from waves_local.speech.voices import VOICES  # noqa: E402
from waves_local.speech.workers import SpeechProcessError  # noqa: E402

__all__ = ["EspeakSynthesizer", "SpeechProcessError", "SphinxRecognizer", "load_engine"]


class _NoSynthesizer:
    """In the place of a synthesizer that is not installed: its catalogue alone."""

    def voices(self) -> Sequence[Voice]:
        return [spoken.listed for spoken in VOICES.values()]

    async def synthesize(self, request: VoiceRequest) -> AsyncIterator[SpokenAudio | SpokenWord]:
        """Raises `SpeechProcessError`."""
        raise SpeechProcessError(f"espeak-ng is not installed; it would speak with {request.voice_id}.")
        yield  # an iterator, as the others

    def close(self) -> None:
        """Nothing to close."""


class _NoRecognizer:
    """In the place of a recognizer that is not installed."""

    async def open(self, request: RecognitionRequest) -> RecognitionStream:
        """Raises `SpeechProcessError`."""
        raise SpeechProcessError(f"pocketsphinx is not installed; it would hear {request.language}.")

    def close(self) -> None:
        """Nothing to close."""


def load_engine() -> Engine:
    """The engine, loading its libraries in the background: it may be used at once.

    Starts a process for each library, which ends with this one, with the engine's last reference, or by `close()` of
    its synthesizer or recognizer.
    """
    cannot_speak = "" if _has_espeak else f"This upstream cannot speak, espeak-ng is not installed: {CURE}"
    cannot_listen = (
        "" if _has_sphinx else f"This upstream cannot listen, pocketsphinx is not installed: {CURE}"
    )
    return Engine(
        name="speech",
        synthesizer=EspeakSynthesizer() if _has_espeak else _NoSynthesizer(),
        recognizer=SphinxRecognizer() if _has_sphinx else _NoRecognizer(),
        notes=(
            cannot_speak
            or f"Speaks with espeak-ng (espeakng-loader {version('espeakng-loader')}): robotic, but every word is "
            "there. consistency, similarity and enhancement change nothing.",
            cannot_listen
            or f"Listens with pocketsphinx {version('pocketsphinx')} and its US-English model: other languages are "
            "accepted and heard as English. Keywords are boosted if its dictionary has them.",
        ),
        cannot_speak=cannot_speak,
        cannot_listen=cannot_listen,
    )
