"""What all tests rely on."""

from __future__ import annotations

import signal

import hypothesis

# A shell starts what it puts in the background with interrupts ignored, and programs hand that on to those they
# start. Tests interrupt programs, wherever they are run from.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes, or is made, says something about the machine, not about the code.
hypothesis.settings.register_profile(
    "wavegate", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("wavegate")
