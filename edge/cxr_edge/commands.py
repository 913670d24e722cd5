"""How every `cxr-*` command leaves: errors become one sentence on stderr and their exit code."""

from __future__ import annotations

from typing import Any

import click

from cxr_edge.errors import CxrEdgeError, ExitCode


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
    click.echo(f"error: {message}", err=True)
    if remedy:
        click.echo(f"  try: {remedy}", err=True)
    ctx.exit(code)
