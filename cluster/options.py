"""What the commands share: their common options, how settings are read, one stage alone."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console

from configs import Settings, load

console = Console(stderr=True)


class Mode:
    """Whether a failure is shown with its trace."""

    debug = False


def set_debug(value: bool) -> bool:
    """Remember ``--debug`` for ``main``, which reports failures outside of any command."""
    Mode.debug = Mode.debug or value
    return value


Config = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG", help="A YAML file, or the name of a preset: demo, tiny, tiny_untimed, production."
    ),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one setting; may be repeated.")
]
Debug = Annotated[bool, typer.Option("--debug", callback=set_debug, help="Show traces and the libraries' logs.")]


def read(config: str, overrides: Sequence[str] | None) -> Settings:
    """The configuration with its overrides."""
    return load(config, overrides or ())


def alone(settings: Settings, config: str, names: Sequence[str]) -> None:
    """Run the named stages only; what they read has to be there."""
    from cluster.checks import check_settings
    from cluster.runner import Runner
    from cluster.stages import select, table

    stages = table(settings)
    plan = [stage for name in names for stage in select(stages, name)]
    check_settings(settings)
    Runner(settings, stages, config=config, console=console, debug=Mode.debug).run(plan, asked=plan)
    typer.echo(str(plan[-1].output))
