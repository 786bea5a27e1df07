"""What a fork leaves of gRPC: nothing that works.

gRPC's threads do not come along into a forked process. What was made before the fork waits for threads that are gone,
for ever, and so does what is made later, even where every channel was closed before. This cannot be mended from here,
so everything raises there instead. A process that had not used gRPC yet may be forked as it likes.
"""

from __future__ import annotations

import os

FORKED = (
    "this process was forked after its parent had used wavegate, and gRPC does not survive that: make the first call "
    "after the fork (gunicorn: in post_fork, celery: in worker_process_init), or start processes with spawn"
)


class _Forks:
    def __init__(self) -> None:
        self.used = False
        """True once a channel was made, in this process or in one that it was forked from."""
        self.broken = False
        if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
            os.register_at_fork(after_in_child=self._in_child)

    def _in_child(self) -> None:
        self.broken = self.used


_forks = _Forks()


def note_use() -> None:
    """Remember that this process uses gRPC."""
    _forks.used = True


def is_forked() -> bool:
    """True in a process that was forked after gRPC was used: gRPC cannot work there, nor end what is the parent's."""
    return _forks.broken


def check_process() -> None:
    """Raise `RuntimeError` in a process that was forked after gRPC was used."""
    if _forks.broken:
        raise RuntimeError(FORKED)
