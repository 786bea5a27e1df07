"""The kind of a recording, from its content alone: its name may say anything."""

from __future__ import annotations

import io
from collections.abc import Callable

from wavegate.errors import AudioFileError
from wavegate.recordings import _flac, _mpeg, _ogg, _pcm
from wavegate.recordings._general import open_general
from wavegate.recordings._input import Input
from wavegate.recordings._link import Link, NotAudioError, Notes, amount

__all__ = ["TAKEN", "check_content", "next_link", "skip_tags"]

TAKEN = "WAV, FLAC, Ogg (Opus, Vorbis, FLAC), MP3, AIFF, AU, CAF and W64"
"""The kinds that a person may want to know of."""

_HEAD_BYTES = 512
_SEARCHED_BYTES = 64 * 1024

_GENERAL = (
    b"NIST_1A", b"Creative Voice File\x1a", b"PVF1", b"\x64\xa3", b"\xa3\x64", b"2BIT", b"ALawSoundFile",
    b" paf", b"fap ", b"Extended Instrument: ",
)  # fmt: skip
"""Rarer kinds that libsndfile knows: NIST SPHERE, VOC, PVF, IRCAM, AVR, WVE, PAF, XI. It needs all of them at once."""

_OTHERS: tuple[tuple[int, bytes, str], ...] = (
    (4, b"ftyp", "an MP4 file (M4A, AAC)"),
    (0, b"\x1a\x45\xdf\xa3", "a WebM or Matroska file"),
    (0, b"#!AMR", "an AMR file"),
    (0, b"#!SILK", "a SILK file"),
    (0, b"\x02#!SILK", "a SILK file"),
    (0, bytes.fromhex("3026b2758e66cf11"), "a Windows Media file (WMA)"),
    (0, b"wvpk", "a WavPack file"),
    (0, b"MAC ", "a Monkey's Audio file"),
    (0, b"TTA1", "a True Audio file"),
    (0, b"FLV\x01", "a Flash video"),
    (8, b"AVI ", "an AVI video"),
    (0, b"DSD ", "a DSD file"),
    (0, b"FRM8", "a DSD file"),
    (0, b".RMF", "a RealMedia file"),
    (0, b".ra\xfd", "a RealAudio file"),
)
"""Recordings that are not decoded here: where a name begins, and what it means."""

_STRANGERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"MThd", "a MIDI file: notes, but no sound"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive: unpack it first"),
    (0, b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (0, b"BZh", "compressed with bzip2: unpack it first"),
    (0, b"\xfd7zXZ", "compressed with xz: unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it first"),
    (0, b"\x89PNG", "a picture"),
    (0, b"\xff\xd8\xff", "a picture"),
    (0, b"GIF8", "a picture"),
    (0, b"\x7fELF", "a program"),
    (0, b"#EXTM3U", "a playlist: name one of its files"),
    (0, b"[playlist]", "a playlist: name one of its files"),
    (0, b"version https://git-lfs", "a pointer of Git LFS: `git lfs pull` fetches the recording"),
)
"""Files that are no recordings at all."""


def skip_tags(source: Input) -> None:
    """Go past ID3 tags, which stand before recordings of every kind."""
    while source.peek(3) == b"ID3" and (size := _mpeg.tag_bytes(source.peek(10))):
        source.skip(size)


def next_link(source: Input, notes: Notes, *, is_first: bool, raw_expected: bool = False) -> Link | None:
    """The recording that begins here; None where what follows is none.

    At the beginning an MP3 may be a little further on, and what is no recording raises `NotAudioError`, which says
    what it is instead. With `raw_expected` the result is None for what may be raw samples.
    """
    head = source.peek(12)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:] == b"WAVE":
        return _pcm.open_wave(source, notes)
    if head == b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb":
        return _pcm.open_w64(source, notes)
    if head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
        return _or_elsewhere(source, notes, _pcm.open_aiff)
    if head[:4] in (b".snd", b"dns."):
        return _or_elsewhere(source, notes, _pcm.open_au)
    if head[:4] == b"caff":
        return _or_elsewhere(source, notes, _pcm.open_caf)
    if head[:4] == b"fLaC":
        return _flac.open_flac(source, notes)
    if head[:4] == b"OggS":
        link = _ogg.open_ogg(source, notes)
        if link is None and is_first:
            raise NotAudioError("is an Ogg file that has lost its beginning: it cannot be decoded")
        return link
    if _mpeg.starts_with_frames(source):
        return _mpeg.open_mpeg(source, notes)
    if not is_first:
        return None
    head = source.peek(_HEAD_BYTES)
    if head[:4] == b"FORM" and head[8:12] in (b"8SVX", b"16SV"):
        return open_general(source)
    if head.startswith(_GENERAL) and (
        head[:1] not in b"\x64\xa3" or head[2:4] in (b"\1\0", b"\2\0", b"\0\1")
    ):
        return open_general(source)
    _refuse(head)
    if raw_expected:
        return None
    if _is_text(head):
        raise NotAudioError("is text, no recording")
    beginning = source.peek(_SEARCHED_BYTES)
    if _mpeg.find_frames(beginning, whole=False) >= 0:
        return _mpeg.open_mpeg(source, notes)
    if not any(beginning):
        if len(beginning) < _SEARCHED_BYTES:
            raise NotAudioError("holds nothing but zeros", "raw")
        raise NotAudioError(f"begins with {amount(len(beginning))} of nothing but zeros", "raw")
    raise NotAudioError("is no recording of a known kind", "raw")


def _refuse(head: bytes) -> None:
    for at, name, what in _OTHERS:
        if head[at : at + len(name)] == name:
            raise NotAudioError(f"is {what}, which is not decoded here", "convert")
    if head[:1] == b"\xff" and len(head) > 7 and head[1] & 0xF6 == 0xF0 and _is_adts(head):
        raise NotAudioError("is an AAC stream, which is not decoded here", "convert")
    _refuse_strangers(head)


def _refuse_strangers(head: bytes) -> None:
    for at, name, what in _STRANGERS:
        if head[at : at + len(name)] == name:
            raise NotAudioError(f"is {what}")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        raise NotAudioError(
            "is an HTML page, no recording: perhaps an error that a server sent instead of one"
        )
    if start.startswith((b"<?xml", b'{"')):
        raise NotAudioError("is text, no recording: perhaps an error that a server sent instead of one")


def check_content(content: bytes, name: str) -> None:
    """Raise `AudioFileError` for what holds no audio: a web page, an archive, a WAV file that ends with its header.

    All else passes, also kinds that are not decoded here.
    """
    source = Input(io.BytesIO(content))
    head = source.peek(_HEAD_BYTES)
    try:
        _refuse_strangers(head)
    except NotAudioError as exc:
        raise AudioFileError(f"{name} {exc}", exc.cure) from exc
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        try:
            _pcm.open_wave(source, Notes())
        except NotAudioError:
            return  # another decoder may know it
        if source.ended:
            raise AudioFileError(f"{name} holds no audio")


def _is_adts(head: bytes) -> bool:
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    following = head[length : length + 2]
    return length > 7 and (not following or (len(following) == 2 and following == head[:2]))


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as exc:
        if exc.start < len(head) - 3:
            return False
        text = head[: exc.start].decode()
    return all(char.isprintable() or char in "\t\r\n\f" for char in text)


def _or_elsewhere(source: Input, notes: Notes, opener: Callable[[Input, Notes], Link]) -> Link:
    source.keep()
    try:
        link = opener(source, notes)
    except _pcm.Elsewhere:
        source.go_back()
        return open_general(source)
    source.forget()
    return link
