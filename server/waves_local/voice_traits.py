"""Gender and emotion of a voice, estimated from its sound: pitch, its movement, and loudness.

A rough estimate with plain signal processing. It answers in the documented form and follows the audio; it is no
judgement about anybody.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_SHORTEST_S = 0.5
_FRAME_S = 0.04
_LOWEST_HZ, _HIGHEST_HZ = 70.0, 400.0
_MAX_FRAMES = 200
# Half-way between the usual pitch of men and of women.
_DIVIDE_HZ = 165.0


@dataclass(frozen=True, slots=True)
class VoiceTraits:
    """What a voice sounds like."""

    gender: str
    """`male` or `female`."""
    emotions: dict[str, float]
    """Six labels with shares that add up to 1."""


def estimate(pcm: bytes, sample_rate_hz: int) -> VoiceTraits | None:
    """Estimate from 16-bit PCM. `None` where it is too short, or holds no voice."""
    samples = np.frombuffer(pcm, dtype="<i2").astype(np.float64) / 32768
    if len(samples) < _SHORTEST_S * sample_rate_hz:
        return None
    size = int(_FRAME_S * sample_rate_hz)
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    loudness = np.sqrt((frames**2).mean(axis=1))
    voiced = frames[loudness > 0.3 * loudness.max()] if loudness.max() > 0.003 else frames[:0]
    if not len(voiced):
        return None
    pitches = _pitches(voiced[:: max(1, len(voiced) // _MAX_FRAMES)], sample_rate_hz)
    if not len(pitches):
        return None
    pitch_hz = float(np.median(pitches))
    # How much pitch moves, in octaves, and how loud it is: the two axes on which the six labels are laid out.
    movement = float(np.clip(np.std(np.log2(pitches)) / 0.35, 0, 1))
    energy = float(np.clip(np.sqrt((voiced**2).mean()) / 0.25, 0, 1))
    places = {
        "neutral": (0.3, 0.3),
        "calm": (0.1, 0.1),
        "happy": (0.8, 0.6),
        "sad": (0.2, 0.05),
        "angry": (0.6, 1.0),
        "surprised": (1.0, 0.7),
    }
    weights = {
        label: float(np.exp(-6 * ((movement - x) ** 2 + (energy - y) ** 2)))
        for label, (x, y) in places.items()
    }
    total = sum(weights.values())
    return VoiceTraits(
        gender="female" if pitch_hz > _DIVIDE_HZ else "male",
        emotions={label: round(weight / total, 4) for label, weight in weights.items()},
    )


def _pitches(frames: npt.NDArray[np.float64], sample_rate_hz: int) -> npt.NDArray[np.float64]:
    """The pitch of each frame that has one, in Hz: the highest peak of its autocorrelation."""
    frames = frames - frames.mean(axis=1, keepdims=True)
    size = 2 * frames.shape[1]
    spectrum = np.fft.rfft(frames, size, axis=1)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2, size, axis=1)
    low, high = int(sample_rate_hz / _HIGHEST_HZ), int(sample_rate_hz / _LOWEST_HZ)
    window = correlation[:, low : min(high, frames.shape[1] - 1)]
    peaks = window.argmax(axis=1)
    strength = window[np.arange(len(window)), peaks] / np.maximum(correlation[:, 0], 1e-12)
    pitches: npt.NDArray[np.float64] = sample_rate_hz / (peaks[strength > 0.35] + low)
    return pitches
