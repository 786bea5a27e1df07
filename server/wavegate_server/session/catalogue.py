"""The voice catalogues, asked for once in a while and kept."""

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
OLD_TIMEOUT_S = 2.0
"""The same for the catalogue of a model that may be retired, where the others do not wait for it longer."""


class Catalogue:
    """The voices of one upstream, which has a catalogue for each family of models."""

    def __init__(self, http: UpstreamHttp, fresh_s: float = FRESH_S) -> None:
        self._http = http
        self._fresh_s = fresh_s
        self._shelves: dict[str, _Shelf] = {}
        """By path."""

    async def voices(self, model: str = "") -> tuple[CatalogueVoice, ...]:
        """All voices of a model, or of all models, sorted by id.

        Raises errors of `wavegate_server.errors`, also for a model that has no catalogue. An old answer is better than
        none. Where all are asked for, an old model's catalogue may be missing.
        """
        if model:
            return tuple(
                v for v in await self._listed(voices.path_of(model), TIMEOUT_S) if v.serves(model, "")
            )
        current, *old = voices.PATHS
        found, *more = await asyncio.gather(
            self._listed(current, TIMEOUT_S), *(self._listed_if_there(path) for path in old)
        )
        return voices.merged(found, *more)

    async def _listed_if_there(self, path: str) -> tuple[CatalogueVoice, ...]:
        try:
            return await self._listed(path, OLD_TIMEOUT_S)
        except WavegateError as exc:
            logger.debug("an old voice catalogue could not be read: %s", exc.message)
            return ()

    async def _listed(self, path: str, timeout_s: float) -> tuple[CatalogueVoice, ...]:
        shelf = self._shelves.setdefault(path, _Shelf())
        try:
            async with shelf.lock:
                now = asyncio.get_running_loop().time()
                if shelf.voices is None or now - shelf.asked_at >= self._fresh_s:
                    shelf.voices = await self._asked(path, timeout_s, shelf.voices)
                    shelf.asked_at = now
                return shelf.voices
        finally:
            # Names of models come from callers: those that have no catalogue are not kept.
            if shelf.voices is None and not shelf.lock.locked():
                self._shelves.pop(path, None)

    async def _asked(
        self, path: str, timeout_s: float, before: tuple[CatalogueVoice, ...] | None
    ) -> tuple[CatalogueVoice, ...]:
        try:
            raw = await self._http.request(
                self._http.upstreams.choose("tts"), "GET", path, timeout_s=timeout_s
            )
            found = voices.parse(raw, voices.models_of(path))
        except WavegateError as exc:
            if before is None:
                raise
            logger.warning("the voice catalogue could not be read again: %s", exc.message)
            return before
        return tuple(sorted(found, key=lambda v: v.voice_id))


class _Shelf:
    """One catalogue. `voices` is None until it was read."""

    def __init__(self) -> None:
        self.voices: tuple[CatalogueVoice, ...] | None = None
        self.asked_at = 0.0
        self.lock = asyncio.Lock()
