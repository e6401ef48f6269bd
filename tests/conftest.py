"""What all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

# How long an example takes says more about the machine than about the code.  The same examples in every run keep a
# change from being blamed for what another one did; HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
