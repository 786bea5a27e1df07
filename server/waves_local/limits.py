"""The account's limits: active TTS requests and open sockets of a key."""

from __future__ import annotations

import asyncio
from collections import Counter

from waves_local.options import Options


class Limits:
    """Counts what each key has in use. With the limits off, counts only."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._active: Counter[str] = Counter()
        self._sockets: Counter[tuple[str, str]] = Counter()

    def take_request(self, key: str) -> RequestSlot | None:
        """Begin an active TTS request; `None` when the key has as many as it may."""
        limit = self._options.active_requests
        if limit and self._active[key] >= limit:
            return None
        self._active[key] += 1
        return RequestSlot(self, key)

    def take_socket(self, key: str, kind: str) -> bool:
        """Count a socket of kind `tts` or `stt`. False when the key has as many as it may; then it is not counted."""
        options = self._options
        own = options.tts_sockets if kind == "tts" else options.stt_sockets
        limit = own or 5 * options.active_requests
        if limit and self._sockets[kind, key] >= limit:
            return False
        self._sockets[kind, key] += 1
        return True

    def free_socket(self, key: str, kind: str) -> None:
        self._sockets[kind, key] -= 1

    def active(self, key: str) -> int:
        """Active TTS requests of a key."""
        return self._active[key]

    def request_refusal(self) -> str:
        """The sentence for one active request too many."""
        limit = self._options.active_requests
        return f"Concurrency limit reached: this account may have {limit} active TTS requests."


class RequestSlot:
    """One active TTS request."""

    def __init__(self, limits: Limits, key: str) -> None:
        self._limits = limits
        self._key = key
        self._is_free = False

    def free(self, linger_s: float = 0.0) -> None:
        """Give the slot back, now or later. Calling it again does nothing."""
        if self._is_free:
            return
        self._is_free = True
        if linger_s > 0:
            asyncio.get_running_loop().call_later(linger_s, self._free)
        else:
            self._free()

    def _free(self) -> None:
        self._limits._active[self._key] -= 1
