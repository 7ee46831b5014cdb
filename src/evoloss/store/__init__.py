"""The run store: everything a search does, in one SQLite file."""

from evoloss.store.store import Store

__all__ = ["Store"]
