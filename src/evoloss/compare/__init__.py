"""Several methods on several tasks and seeds, at one budget: what is run, and what it shows."""

from evoloss.compare.plan import Plan, parse_budget
from evoloss.compare.runner import run
from evoloss.compare.summary import Row, Summary, summarise

__all__ = ["Plan", "Row", "Summary", "parse_budget", "run", "summarise"]
