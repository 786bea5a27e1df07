"""The engine that really speaks and listens: espeak-ng and pocketsphinx, offline, by pip alone.

    engine = load_engine()
    async for piece in engine.synthesizer.synthesize(VoiceRequest("Hello, world.", "magnus")):
        ...

Importing this package raises `ImportError`, with what to type, where the optional extra is not installed.

How it works
------------
espeak-ng keeps its state in global variables, and pocketsphinx holds the interpreter lock while it decodes,
so neither may run in the process that serves sockets. Each library is loaded once, in a process of its own
that forks a child for each request or stream (`workers`). A fork takes about 2 ms, shares the loaded models,
starts from the same state every time (the same request makes the same samples), and its crash hurts nobody
else.
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec

from waves_local.engine import Engine

_missing = [name for name in ("espeakng_loader", "pocketsphinx") if find_spec(name) is None]
if _missing:
    raise ImportError(
        f"The speech engine needs {' and '.join(_missing)}, which the optional extra brings: "
        "pip install 'wavegate[speech]'"
    )

from waves_local.speech.espeak import EspeakSynthesizer  # noqa: E402 - only once the extra is known to be there
from waves_local.speech.sphinx import SphinxRecognizer  # noqa: E402
from waves_local.speech.workers import SpeechProcessError  # noqa: E402

__all__ = ["EspeakSynthesizer", "SpeechProcessError", "SphinxRecognizer", "load_engine"]


def load_engine() -> Engine:
    """The engine, loading its libraries in the background: it may be used at once.

    Starts two processes, which end with this one, with the engine's last reference, or by `close()` of its
    synthesizer and recognizer.
    """
    return Engine(
        name="speech",
        synthesizer=EspeakSynthesizer(),
        recognizer=SphinxRecognizer(),
        notes=(
            f"Speaks with espeak-ng (espeakng-loader {version('espeakng-loader')}): robotic, but every word is "
            "there. consistency, similarity and enhancement change nothing.",
            f"Listens with pocketsphinx {version('pocketsphinx')} and its US-English model: other languages are "
            "accepted and heard as English. Keywords are boosted if its dictionary has them.",
        ),
    )
