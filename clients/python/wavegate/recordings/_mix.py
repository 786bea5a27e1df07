"""One channel out of several, in which every voice is as loud as in its own channel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from wavegate.recordings._samples import Samples

__all__ = ["mixed"]

_WINDOW_S = 0.05
"""Playing time over which weights are decided and slide: about two glottal periods of the lowest voice and more."""

_MEMORY = 0.5
"""How much of what was measured before still counts, a window later."""

_OPPOSITE = -0.5
"""Correlation below which two channels are the same sound in opposite phase. Different sounds are near 0."""

_SILENCE = 1e-10
"""Energy of a sample, on average, below which nothing is learnt: -100 dB."""


def mixed(blocks: Iterator[Samples], channels: int, rate_hz: int) -> Iterator[Samples]:
    """The sum of all channels, no louder and never much quieter than the loudest of them.

    A mean would halve a voice that is in one channel only, and lose one that is in two channels in opposite phase, as
    of a microphone with a balanced output that was taken for stereo. So a channel that runs against the louder ones is
    turned round, and the sum is scaled to the energy of the loudest channel.
    """
    if channels == 1:
        for block in blocks:
            yield block[:, 0]
        return
    mixer = _Mixer(channels)
    window = max(1, round(rate_hz * _WINDOW_S))
    rest: Samples = np.zeros((0, channels), np.float32)
    # In windows of one length from the first frame on, so that it does not matter in which pieces audio comes.
    for part in blocks:
        block = np.concatenate([rest, part]) if len(rest) else part
        whole = len(block) - len(block) % window
        rest = block[whole:]
        if whole:
            yield np.concatenate([mixer.mix(block[at : at + window]) for at in range(0, whole, window)])
    if len(rest):
        yield mixer.mix(rest)


class _Mixer:
    def __init__(self, channels: int) -> None:
        self._signs = np.ones(channels)
        self._products = np.zeros((channels, channels))
        self._weights: npt.NDArray[np.float64] | None = None

    def mix(self, window: Samples) -> Samples:
        before = self._weights
        wide = window.astype(np.float64)
        products = wide.T @ wide / len(window)
        if np.max(np.diag(products)) > _SILENCE:
            self._products = _MEMORY * self._products + (1 - _MEMORY) * products
            self._decide()
        after = self._weights if self._weights is not None else self._signs / len(self._signs)
        if before is None or np.array_equal(before, after):
            return np.asarray(window @ after.astype(np.float32), np.float32)
        slide = np.linspace(0, 1, len(window), endpoint=False)[:, None]
        return np.asarray(np.sum(wide * (before + slide * (after - before)), axis=1), np.float32)

    def _decide(self) -> None:
        energies = np.diag(self._products)
        sum_of = np.zeros(len(energies))
        for channel in np.argsort(-energies, kind="stable"):
            sum_energy = float(sum_of @ self._products @ sum_of)
            scale = np.sqrt(sum_energy * energies[channel])
            if scale > 0:
                correlation = float(sum_of @ self._products[channel]) / scale
                # Between the two a channel keeps its side: different voices are never turned round and back.
                if correlation * self._signs[channel] < _OPPOSITE:
                    self._signs[channel] *= -1
            sum_of[channel] = self._signs[channel]
        sum_energy = float(sum_of @ self._products @ sum_of)
        self._weights = self._signs * min(1.0, np.sqrt(np.max(energies) / sum_energy))
