"""Hypothesis draws the same examples in every run and times nothing."""

from hypothesis import settings

settings.register_profile("evoloss", deadline=None, derandomize=True)
settings.load_profile("evoloss")
