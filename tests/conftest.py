"""Hypothesis draws the same examples in every run and times nothing; threads wait quietly."""

import os

from hypothesis import settings

settings.register_profile("evoloss", deadline=None, derandomize=True)
settings.load_profile("evoloss")

# As `import evoloss` sets it, but before a test module imports torch: threads that spin while they
# wait make small tensor operations ten times slower on a machine that has other work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
