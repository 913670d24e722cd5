"""Messages to stderr, for a person or, as JSON lines, for a log collector. File names only, hashed on request.

What cron mails is whatever is written here: nothing when all is well.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timezone

import click

from cxr_edge.discover import Notice


@dataclass(frozen=True)
class Log:
    """Where messages go: `as_json` makes each a JSON object in a line of its own; `redact` hashes names of files."""

    as_json: bool = False
    redact: bool = False

    def warn(self, notice: Notice) -> None:
        """Tell what a person should know."""
        self._write("warning", notice.text, path=self.name(notice.path))

    def say(self, text: str) -> None:
        """Tell what concerns no file."""
        self._write("warning", text)

    def name(self, path: str) -> str:
        """A path as it may be told: itself, or the first 12 hex digits of its SHA-256."""
        return hashlib.sha256(path.encode()).hexdigest()[:12] if self.redact else path

    def _write(self, level: str, text: str, path: str = "") -> None:
        if self.as_json:
            click.echo(json_line(level, text, **({"path": path} if path else {})), err=True)
        else:
            click.echo(f"{level}: {path + ': ' if path else ''}{text}", err=True)


def json_line(level: str, message: str, **fields: object) -> str:
    """One line of a JSON log."""
    time = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.dumps({"time": time, "level": level, "message": message, **fields})
