"""Recordings: audio of any container, rate and number of channels, from files and from pipes.

    _kinds       what a recording is, by its content
    _pcm         containers of plain samples
    _mpeg _flac _ogg    compressed ones, cut into frames
    _general     every other kind that libsndfile knows
    _mix         one channel out of several
    _source      the conversion; `open_audio`

A recording is read from its first byte to its last, as a stream: a file that could seek is read as a pipe is.
Compressed audio is decoded in runs of as many frames as are there, so that words come while a stream goes on and
memory stays small.
"""

from wavegate.recordings._kinds import TAKEN, check_content
from wavegate.recordings._samples import encode
from wavegate.recordings._source import AudioSource, decode, open_audio

__all__ = ["TAKEN", "AudioSource", "check_content", "decode", "encode", "open_audio"]
