"""How every `cxr-*` command leaves, errors as one sentence on stderr and their exit code; and kinds of options."""

from __future__ import annotations

import re
from typing import Any

import click

from cxr_edge.errors import CxrEdgeError, ExitCode

LOG_FORMAT = "cxr_edge.log_format"
"""Where a command leaves, in click's context, whether its errors are to be JSON."""


class ErrorMappingCommand(click.Command):
    """A click command that maps `CxrEdgeError`, Ctrl-C and a missing extra to exit codes.

    Exceptions that are nobody's fault but ours still show their traceback (exit code 1).

    Args:
        needs: the extra that brings what the command imports; named when an import fails.
    """

    def __init__(self, *args: Any, needs: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.needs = needs

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except CxrEdgeError as error:
            leave(ctx, error.message, error.remedy, error.exit_code)
        except KeyboardInterrupt:
            leave(ctx, "interrupted", "", ExitCode.INTERRUPTED)
        except ModuleNotFoundError as error:
            if not self.needs:
                raise
            leave(ctx, f"{error.name} is not installed", f"pip install 'cxr-edge[{self.needs}]'", ExitCode.USAGE)


class ErrorMappingGroup(ErrorMappingCommand, click.Group):
    """A click group of such commands."""


def leave(ctx: click.Context, message: str, remedy: str, code: ExitCode) -> None:
    """Say on stderr what happened and what to do, and leave with the exit code."""
    if ctx.meta.get(LOG_FORMAT) == "json":
        from cxr_edge.log import json_line

        click.echo(json_line("error", message, remedy=remedy, exit_code=int(code)), err=True)
        ctx.exit(code)
    click.echo(f"error: {message}", err=True)
    if remedy:
        click.echo(f"  try: {remedy}", err=True)
    ctx.exit(code)


def byte_count(text: str) -> int:
    """A size like 128M in bytes: K, M and G are powers of 1024; at least 1M. Raises click.BadParameter."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG])(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise click.BadParameter(f"{text!r} is no size such as 128M or 1G")
    count = int(float(match[1]) * 1024 ** (1 + "KMG".index(match[2].upper())))
    if count < 2**20:
        raise click.BadParameter(f"{text!r} is less than 1M")
    return count


def seconds(text: str) -> float:
    """A time like 90s, 45m or 6h in seconds. Raises click.BadParameter."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not match:
        raise click.BadParameter(f"{text!r} is no time such as 90s, 45m or 6h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
