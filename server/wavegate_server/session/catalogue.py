"""The voice catalogue, asked for once in a while and kept."""

from __future__ import annotations

import asyncio
import logging

from wavegate_server.errors import WavegateError
from wavegate_server.session.http import UpstreamHttp
from wavegate_server.waves import voices
from wavegate_server.waves.voices import CatalogueVoice

logger = logging.getLogger(__name__)

FRESH_S = 300.0
"""How long an answer is good: voices come and go by days, and a page is read in seconds."""
TIMEOUT_S = 10.0


class Catalogue:
    """The voices of one upstream."""

    def __init__(self, http: UpstreamHttp, fresh_s: float = FRESH_S) -> None:
        self._http = http
        self._fresh_s = fresh_s
        self._voices: tuple[CatalogueVoice, ...] | None = None
        self._asked_at = 0.0
        self._lock = asyncio.Lock()

    async def voices(self) -> tuple[CatalogueVoice, ...]:
        """All voices, sorted by id. Raises errors of `wavegate_server.errors`; an old answer is better than none."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if self._voices is not None and now - self._asked_at < self._fresh_s:
                return self._voices
            try:
                raw = await self._http.request(
                    self._http.upstreams.choose("tts"), "GET", voices.VOICES_PATH, timeout_s=TIMEOUT_S
                )
                found = voices.parse(raw)
            except WavegateError as exc:
                if self._voices is None:
                    raise
                logger.warning("the voice catalogue could not be read again: %s", exc.message)
                found = self._voices
            self._voices = tuple(sorted(found, key=lambda v: v.voice_id))
            self._asked_at = now
            return self._voices
