"""What all tests share."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

# What one test has learned about waiting is not to be known to another, nor to be left in a home.
os.environ["FLUXWERK_CACHE"] = "off"
# The runs of pytest that tests start are small, and are not to share themselves out as this one may.
os.environ.pop("PYTEST_ADDOPTS", None)
# A shell lets what it starts in the background ignore Ctrl-C.  Programs that tests start would inherit that, and those
# that are stopped by it would never end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# How long an example takes says more about the machine than about the code.  The same examples in every run keep a
# change from being blamed for what another one did; HYPOTHESIS_PROFILE=explore looks for new ones.
CALM = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("same", derandomize=True, **CALM)
settings.register_profile("explore", **CALM)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
