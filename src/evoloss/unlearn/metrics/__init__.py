"""Unlearning metrics: pure functions of log-probabilities, matches and texts."""
