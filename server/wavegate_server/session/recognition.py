"""`Recognize`: one recording, over the upstream's endpoint for recordings."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from wavegate_server import errors
from wavegate_server.audio import AudioFormat
from wavegate_server.session.context import endpoint_of
from wavegate_server.session.events import Upstream
from wavegate_server.session.http import UpstreamHttp
from wavegate_server.session.retry import QueueWait, RetryBudget
from wavegate_server.waves import prerecorded, stt
from wavegate_server.waves.prerecorded import Answer
from wavegate_server.waves.settings import Settings

SILENCE_S = 120.0
"""How long the upstream may work on a recording without a word, at least: an hour of speech takes it about a minute.
One that hears no faster than speech is spoken may take as long as the recording plays, and `stt.OWED_S` more."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Either `content`, a file or raw audio in `audio_format`, or the `uri` where the upstream finds it."""

    content: bytes = b""
    audio_format: AudioFormat | None = None
    uri: str = ""

    def body(self) -> tuple[bytes, str]:
        """What is sent, and its content type."""
        if self.uri:
            return prerecorded.address_body(self.uri), "application/json"
        content, audio_format = self.content, self.audio_format
        raw = audio_format is not None and audio_format.encoding in prerecorded.RAW_ENCODINGS
        # A file in the place of raw audio is what it says it is, not noise with a header.
        if raw and audio_format is not None and not prerecorded.has_container(content):
            content = prerecorded.wav(content, audio_format)
        return content, "application/octet-stream"


async def recognize(
    http: UpstreamHttp, settings: Settings, recording: Recording, *, max_queue_wait_s: float
) -> tuple[Answer, Upstream]:
    """The transcript of a recording, and who made it.

    Raises errors of `wavegate_server.errors`. A refused or lost connection is tried again, a full account within
    `max_queue_wait_s`; an upstream that works too long is not. Cancelling gives the request up.
    """
    upstreams = http.upstreams
    old_path = upstreams.template.old_stt_path
    path = prerecorded.path_of(old_path=old_path)
    query = prerecorded.query(settings, old_path=old_path)
    content, content_type = recording.body()
    playing_s = 0.0 if recording.uri else prerecorded.playing_s(content)
    retry, queue = RetryBudget(), QueueWait(max_queue_wait_s)
    loop = asyncio.get_running_loop()
    while True:
        target = upstreams.choose("stt", settings.get("language_code", ""))
        try:
            body = await http.request(
                target,
                "POST",
                path,
                query=query,
                content=content,
                content_type=content_type,
                timeout_s=max(SILENCE_S, playing_s + stt.OWED_S),
            )
            answer = prerecorded.parse(body)
            return answer, Upstream(request_id=answer.request_id, endpoint=endpoint_of(target.http_url(path)))
        except errors.UpstreamStalled:
            raise
        except (errors.UpstreamError, errors.UpstreamCapacity) as exc:
            full = isinstance(exc, errors.UpstreamCapacity)
            delay = queue.next_delay_s(exc, loop.time()) if full else retry.next_delay_s(exc)
            if delay is None:
                raise
        await asyncio.sleep(delay)
