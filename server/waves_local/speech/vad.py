"""When speech begins and ends, out of a yes or no for each frame."""

from __future__ import annotations

from collections import deque

from waves_local.engine import VoiceActivity

DEFAULT_THRESHOLD = 0.7
DEFAULT_MIN_SPEECH_S = 0.16
HANGOVER_S = 0.3
"""The silence after which speech has ended: longer than the gaps between words spoken in one breath."""


class SpeechDetector:
    """Smooths voiced and unvoiced frames into speech and silence.

    Speech begins when a share of at least `threshold` of the last `min_speech_s` was voiced; it ends when
    `hangover_s` passed without two voiced frames in a row. Events carry the time of the sound, not the later time
    at which it was certain.
    """

    def __init__(
        self,
        frame_s: float,
        threshold: float = DEFAULT_THRESHOLD,
        min_speech_s: float = DEFAULT_MIN_SPEECH_S,
        hangover_s: float = HANGOVER_S,
    ) -> None:
        self._threshold = min(max(threshold, 0.0), 1.0)
        self._hangover_s = hangover_s
        self._recent: deque[tuple[bool, float]] = deque(maxlen=max(1, round(min_speech_s / frame_s)))
        self._frame_s = frame_s
        self._last_was_voiced = False
        self._voice_until_s = 0.0
        self.speaking = False

    def silence_s(self, now_s: float) -> float:
        """How long ago the last voiced frame ended. Meaningful once speech has begun."""
        return now_s - self._voice_until_s

    def frame(self, voiced: bool, end_s: float) -> VoiceActivity | None:
        """Take the next frame, which ends at this offset; say whether speech began or ended by it."""
        # A single voiced frame is a click, not a voice that goes on.
        if voiced and (self._last_was_voiced or not self.speaking):
            self._voice_until_s = end_s
        self._last_was_voiced = voiced
        if self.speaking:
            # Half a frame: offsets are sums of floats.
            if self.silence_s(end_s) < self._hangover_s - self._frame_s / 2:
                return None
            self.speaking = False
            self._recent.clear()
            return VoiceActivity(speaking=False, at_s=round(self._voice_until_s, 3))
        self._recent.append((voiced, end_s - self._frame_s))
        starts = [start_s for was_voiced, start_s in self._recent if was_voiced]
        if len(self._recent) < (self._recent.maxlen or 1) or not starts:
            return None
        if len(starts) / len(self._recent) < self._threshold:
            return None
        self.speaking = True
        return VoiceActivity(speaking=True, at_s=round(max(starts[0], 0.0), 3))
