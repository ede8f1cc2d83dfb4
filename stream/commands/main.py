"""The `hrnn` command line: its options, its commands in the order of first use, and its error output."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from stream.commands import broker as broker_command
from stream.commands import dead_letters as dead_letters_command
from stream.commands import demo as demo_command
from stream.commands import doctor as doctor_command
from stream.commands import evaluate as evaluate_command
from stream.commands import models as models_commands
from stream.commands import plan as plan_command
from stream.commands import produce as produce_command
from stream.commands import services as service_commands
from stream.commands import settings as settings_command
from stream.commands import topics as topics_commands
from stream.commands import tune as tune_command
from stream.commands import watch as watch_command
from stream.commands.failures import Failure
from stream.process.logs import Format, Level, configure_logging

app = typer.Typer(
    name="hrnn",
    help="A streaming recommender on Kafka: a neural state per user, a new list with each event.",
    epilog="Settings come from the environment, see `hrnn settings`; options override them. Results go to standard "
    "output, everything else to standard error. Exit status: 0 success, 1 failure or a problem found, 2 wrong "
    "arguments, settings or input files.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        try:
            typer.echo(f"hrnn-stream {version('hrnn-stream')}")
        except PackageNotFoundError:
            raise Failure("hrnn-stream runs from its sources and is not installed", "make install") from None
        raise typer.Exit


@app.callback()
def _before_any_command(
    context: typer.Context,
    log_level: Annotated[Level | None, typer.Option(help="Lowest level to log. \\[HRNN_LOG_LEVEL, else info]")] = None,
    log_format: Annotated[
        Format | None, typer.Option(help="auto: text at a terminal, JSON lines otherwise. \\[HRNN_LOG_FORMAT]")
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    from stream.commands.environment import refuse_unknown

    refuse_unknown()
    service = context.invoked_subcommand in ("worker", "trainer")
    configure_logging(log_level, log_format, default="info" if service else "error", every_line=service)


app.command("demo")(demo_command.demo)
app.command("broker")(broker_command.broker)
app.command("worker")(service_commands.worker)
app.command("trainer")(service_commands.trainer)
app.add_typer(topics_commands.app, name="topics")
app.command("produce")(produce_command.produce)
app.command("watch")(watch_command.watch)
app.command("dead-letters")(dead_letters_command.dead_letters)
app.command("evaluate")(evaluate_command.evaluate)
app.command("tune")(tune_command.tune)
app.add_typer(models_commands.app, name="models")
app.command("doctor")(doctor_command.doctor)
app.command("audit")(demo_command.audit)
app.command("plan")(plan_command.plan)
app.command("settings")(settings_command.settings)


def main() -> None:
    """Run the command line: the entry point of `hrnn`."""
    try:
        app()
    except Failure as failure:
        typer.secho(f"error: {failure.what}", file=sys.stderr, fg="red")
        if failure.remedy:
            typer.echo(f"remedy: {failure.remedy}", file=sys.stderr)
        sys.exit(failure.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
