"""Reports on searches: one HTML file that opens anywhere, with its pictures and data beside it."""

from evoloss.report.writing import write

__all__ = ["write"]
