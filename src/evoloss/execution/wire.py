"""Plain data over a connection: JSON, and the bytes of its arrays after it. No code, no pickle.

Numbers arrive bit for bit: JSON writes floats so that they read back exactly.
"""

from __future__ import annotations

import json
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from evoloss.execution.executor import Plain

_ARRAY = "$array"


def send(connection: Connection, data: Plain) -> None:
    """Raises: OSError if nobody is left to receive it."""
    arrays: list[NDArray[np.generic]] = []

    def described(value: object) -> Plain:
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{type(value).__name__} is not plain data")
        arrays.append(np.ascontiguousarray(value))
        return {_ARRAY: len(arrays) - 1, "dtype": value.dtype.str, "shape": list(value.shape)}

    text = json.dumps(data, default=described)
    connection.send_bytes(json.dumps([len(arrays), text]).encode())
    for each in arrays:
        connection.send_bytes(each.tobytes())


def receive(connection: Connection) -> Plain:
    """Raises: EOFError or OSError if the other side is gone."""
    count, text = json.loads(connection.recv_bytes())
    parts = [connection.recv_bytes() for _ in range(count)]

    def restored(node: dict[str, Plain]) -> Plain:
        if _ARRAY not in node:
            return node
        flat = np.frombuffer(parts[node[_ARRAY]], dtype=node["dtype"])
        return flat.reshape(node["shape"]).copy()  # the bytes themselves cannot be written to

    return json.loads(text, object_hook=restored)
