"""The commands that are no stage: the service and its state, a job, the demo, the configuration."""

from typing import Annotated

import typer

from cluster.options import Config, Debug, Mode, Set, console, read
from configs.load import to_yaml

running_app = typer.Typer()
"""Without a name, so that its commands stand beside those of ``cli``."""


@running_app.command()
def serve(config: Config, overrides: Set = None, debug: Debug = False) -> None:
    """Serve GM and IM over HTTP until Ctrl-C."""
    from cluster.service import serve as serve_both

    serve_both(read(config, overrides), console, debug=Mode.debug)


@running_app.command()
def status(
    config: Config,
    window: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, max=900, help="How far back rates and counts reach.")
    ] = 300,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    overrides: Set = None,
    debug: Debug = False,
) -> None:
    """The service that runs: deployments, replicas, versions, queue, rates, health, recent errors by name.

    Ends with 1 where it is not well.
    """
    from cluster.status import status as show_status

    raise typer.Exit(show_status(read(config, overrides), window_s=window, as_json=as_json, debug=Mode.debug))


@running_app.command()
def submit(
    config: Config,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="For example: -- llumi run demo")],
    overrides: Set = None,
    detach: Annotated[bool, typer.Option("--detach", help="Print the job's id and do not wait.")] = False,
    debug: Debug = False,
) -> None:
    """Run a command as a job on the cluster of CONFIG; ends with the job's exit code."""
    from cluster.jobs import submit as submit_job

    raise typer.Exit(submit_job(read(config, overrides), command, detach=detach, console=console, debug=Mode.debug))


@running_app.command()
def demo(
    output: Annotated[str | None, typer.Option(help="Folder to write; runs/demo unless given.")] = None,
    overrides: Set = None,
    debug: Debug = False,
) -> None:
    """The whole way on the built-in sample, then a draft and a revision over HTTP."""
    from cluster.demo import demo as run_demo

    given = [f"output={output}"] if output else []
    run_demo(read("demo", [*(overrides or ()), *given]), console, debug=Mode.debug)


@running_app.command("config")
def show_config(config: Config, overrides: Set = None, debug: Debug = False) -> None:
    """Print the resolved configuration."""
    typer.echo(to_yaml(read(config, overrides)), nl=False)
