"""Messages between two processes over a socket: something JSON, and bytes. Nothing that arrives is ever executed."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

LENGTHS = struct.Struct(">QQ")
"""Before each message: how many bytes of JSON follow, and how many after those."""
LONGEST = 2**32
"""Bytes of one part. What claims to be longer comes from a process that has lost its mind."""


class Channel:
    """One end. One thread at a time."""

    def __init__(self, end: socket.socket, seconds: float | None = None) -> None:
        """Take over a connected socket; `seconds` may pass without a byte, None for ever."""
        end.settimeout(seconds)
        self._socket, self._file = end, end.makefile("rb")

    def send(self, words: object, payload: bytes = b"") -> None:
        """Send a message. Raises TimeoutError, or another OSError where the other end is gone."""
        text = json.dumps(words).encode()
        self._socket.sendall(LENGTHS.pack(len(text), len(payload)) + text + payload)

    def receive(self) -> tuple[Any, bytes]:
        """Wait for a message. Raises EOFError where the other end is gone, TimeoutError, another OSError."""
        lengths = LENGTHS.unpack(self._read(LENGTHS.size))
        if max(lengths) > LONGEST:
            raise EOFError
        text, payload = (self._read(length) for length in lengths)
        return json.loads(text), payload

    def close(self) -> None:
        """Close this end."""
        self._file.close()
        self._socket.close()

    def _read(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) < length:
            raise EOFError
        return data
