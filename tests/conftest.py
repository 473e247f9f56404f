"""What holds for all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# No example has a deadline, as machines differ; where the outcome decides what lands, the examples
# are the same each time.
settings.register_profile("homerd", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("homerd")
