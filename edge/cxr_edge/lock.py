"""One sweep for one output folder: an advisory lock on `OUT/.lock`, which the system lifts when its owner dies."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from cxr_edge.errors import OutputLocked
from cxr_edge.outputs import unwritable


@contextmanager
def hold(out: Path) -> Iterator[None]:
    """Make the output folder and hold it.

    Raises:
        OutputLocked: another sweep holds it; the message says which and since when.
        OutputUnwritable: the folder cannot be made or written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        # Unbuffered: what a full disk refuses must not be tried again when the file is closed.
        file = (out / ".lock").open("a+b", buffering=0)
    except OSError as error:
        raise unwritable(out, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            since = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}, since {since}\n".encode())
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().decode(errors="replace").strip() or "an unknown process"
            message = f"{out} is held by another sweep: {owner}"
            raise OutputLocked(message, "wait for it, or choose another -o") from error
        except OSError as error:
            raise unwritable(out, error) from error
        yield
