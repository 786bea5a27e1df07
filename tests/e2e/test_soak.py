"""Many conversations while the upstream keeps failing: `make soak`, for a while."""

from __future__ import annotations

import os
import secrets

import pytest

from benchmarks import soak

SECONDS = float(os.environ.get("WAVEGATE_SOAK_SECONDS", "45"))


@pytest.mark.timeout(SECONDS + 2 * soak.PATIENCE_S)
async def test_every_conversation_is_whole() -> None:
    """Of 40 streams, each character is heard once and in order, and each word where it was said."""
    report = await soak.soak(SECONDS, secrets.randbelow(2**31), fault_every_s=min(10.0, SECONDS / 6))
    assert not report.mismatches, str(report)
    for kind in ("utterances whole", "words heard", "reconnects"):
        assert report.totals[kind] > 0, str(report)
