"""Plain data as bytes, to send or to keep: JSON, and that of its arrays. No code, no pickle.

Numbers arrive bit for bit: JSON writes floats so that they read back exactly.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from evoloss.execution.executor import Plain

_ARRAY = "$array"


def packed(data: Plain) -> list[bytes]:
    """The parts of plain data: a header, and the bytes of each array.

    Raises: TypeError for what is no plain data.
    """
    arrays: list[NDArray[np.generic]] = []

    def described(value: object) -> Plain:
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{type(value).__name__} is not plain data")
        arrays.append(np.ascontiguousarray(value))
        return {_ARRAY: len(arrays) - 1, "dtype": value.dtype.str, "shape": list(value.shape)}

    text = json.dumps(data, default=described)
    return [json.dumps([len(arrays), text]).encode(), *(each.tobytes() for each in arrays)]


def unpacked(parts: Sequence[bytes]) -> Plain:
    """What `packed` took apart."""
    _, text = json.loads(parts[0])
    return _restored(text, parts[1:])


def send(connection: Connection, data: Plain) -> None:
    """Raises: OSError if nobody is left to receive it."""
    for part in packed(data):
        connection.send_bytes(part)


def receive(connection: Connection) -> Plain:
    """Raises: EOFError or OSError if the other side is gone."""
    count, text = json.loads(connection.recv_bytes())
    return _restored(text, [connection.recv_bytes() for _ in range(count)])


def _restored(text: str, arrays: Sequence[bytes]) -> Plain:
    def restored(node: dict[str, Plain]) -> Plain:
        if _ARRAY not in node:
            return node
        flat = np.frombuffer(arrays[node[_ARRAY]], dtype=node["dtype"])
        return flat.reshape(node["shape"]).copy()  # the bytes themselves cannot be written to

    return json.loads(text, object_hook=restored)
