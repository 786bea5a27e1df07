"""Going on in mid-utterance after a lost connection where no word times tell how far it came. Pure.

All of the request is spoken again, and what was heard already is held against it: only if the new beginning is the
same, to the sample, does the speech go on behind it.
"""

from __future__ import annotations

import hashlib


class Heard:
    """What of a request was delivered: how much PCM, and a digest of it."""

    __slots__ = ("_digest", "size_bytes")

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=16)
        self.size_bytes = 0

    def add(self, pcm: bytes) -> None:
        """More of it was delivered."""
        self._digest.update(pcm)
        self.size_bytes += len(pcm)

    def digest(self) -> bytes:
        return self._digest.digest()


class NotTheSame(Exception):
    """Raised when the repeated speech begins otherwise than what was heard."""


class Repetition:
    """A request that is spoken again from its start."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self._again = Heard()

    def __repr__(self) -> str:
        return f"<Repetition {self._again.size_bytes} of {self._heard.size_bytes} bytes>"

    @property
    def caught_up(self) -> bool:
        """Whether all that was heard has come again."""
        return self._again.size_bytes == self._heard.size_bytes

    def receive(self, pcm: bytes) -> bytes:
        """What of `pcm` was not heard yet. Raises `NotTheSame`."""
        if self.caught_up:
            return pcm
        missing = self._heard.size_bytes - self._again.size_bytes
        self._again.add(pcm[:missing])
        if self.caught_up and self._again.digest() != self._heard.digest():
            raise NotTheSame
        return pcm[missing:]
