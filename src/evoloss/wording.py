"""Counts in what is told to people: `1 row`, `1,200 rows`."""


def counted(count: float, one: str, many: str | None = None) -> str:
    """A count with what is counted. many: what follows other numbers than 1, if not `one` + s.

    Both may hold more than a noun: counted(2, "row is left out", "rows are left out").
    """
    number = f"{count:g}" if isinstance(count, float) else f"{count:,}"
    return f"{number} {one if count == 1 else many or one + 's'}"
