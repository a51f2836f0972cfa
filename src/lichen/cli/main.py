"""The entry point: a lazy group, global options and the one place where errors become exit codes.

A command module exports ``command`` (a ``click.Command``). Its one-line help is kept in the table
here so that ``lichen --help`` imports no command.
"""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Final

import click

from lichen.core.errors import LichenError
from lichen.core.registry import unknown

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "accelerate": ("lichen.cli.accelerate", "Find the strategies that pay here, and prove it."),
    "bench": ("lichen.cli.bench", "Run a task through solutions: quality beside six costs."),
    "compare": ("lichen.cli.compare", "Compare two solutions or runs, with intervals."),
    "compress": ("lichen.cli.compress", "Make a model smaller, and prove it is still the same."),
    "doctor": ("lichen.cli.doctor", "Say what can be measured here, how, and what cannot."),
    "estimate": ("lichen.cli.estimate", "Estimate what was not run here: training, inference."),
    "models": ("lichen.cli.models", "List, fetch, inspect and remove models."),
    "report": ("lichen.cli.report", "Write the page of a run; re-price it for another grid."),
    "runs": ("lichen.cli.runs", "List, show, remove, export and import runs."),
    "tasks": ("lichen.cli.tasks", "List tasks and their data sets; score stored samples."),
}
"""Command name -> (module that exports ``command``, one-line help)."""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Return the command names, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            ctx.fail(unknown("command", cmd_name, tuple(COMMANDS)))
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command table from the static texts, importing nothing."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in sorted(COMMANDS)])


def _show_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    """Print the version; importlib.metadata is slow, so it is asked only when wanted."""
    if value and not ctx.resilient_parsing:
        from lichen import __version__

        click.echo(f"lichen {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.option("-v", "--verbose", count=True, help="Log more to stderr (-vv for debugging).")
def cli(verbose: int) -> None:
    """Make language models for software engineering efficient and green, and prove it."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )


def main() -> None:
    """Run the command line; a LichenError becomes one sentence on stderr and its exit code."""
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Exit as exc:
        sys.exit(exc.exit_code)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; what was finished is stored, and the same command resumes", err=True)
        sys.exit(130)
    except LichenError as exc:
        click.echo(f"lichen: {exc}  [{exc.code}]", err=True)
        sys.exit(exc.exit_code)
    sys.exit(code if isinstance(code, int) else 0)
