"""The commands that come in groups: ``llumi keys``, ``rollout`` and ``feedback``."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cluster.options import Config, Debug, Mode, Set, alone, console, read
from configs.training import ModelName

keys_app = typer.Typer(name="keys", help="API keys of the service: create, list, revoke.", no_args_is_help=True)
rollout_app = typer.Typer(
    name="rollout", help="A new version of a model into the service that runs, and back.", no_args_is_help=True
)
RolledOut = Annotated[ModelName, typer.Option("--model", help="Which model.")]


class PairsUnlessNamed(TyperGroup):
    """``llumi feedback CONFIG`` makes pairs: the first word is a command only where it is the name of one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``pairs`` in front of what is no command."""
        if args and args[0] not in (*self.commands, "--help"):
            args = ["pairs", *args]
        return super().parse_args(ctx, args)


feedback_app = typer.Typer(
    cls=PairsUnlessNamed,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Rating files to pairs for DPO2 (llumi feedback CONFIG); the service's feedback store.",
)


@feedback_app.command("pairs")
def feedback_pairs(config: Config, overrides: Set = None, debug: Debug = False) -> None:
    """Ratings in five dimensions, and choices, to the preference pairs of DPO2."""
    settings = read(config, overrides)
    panel = ["feedback/ratings"] if settings.feedback.panel else []
    alone(settings, config, [*panel, "feedback/pairs"])


@feedback_app.command("export")
def feedback_export(
    config: Config,
    out: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="feedback/served.jsonl under the output unless given.")
    ] = None,
    overrides: Set = None,
    debug: Debug = False,
) -> None:
    """Write what people said of the service's answers as a rating file; prints its path on the last line."""
    from cluster import feedback

    tell(feedback.export(read(config, overrides), config, out))


@feedback_app.command("purge")
def feedback_purge(
    config: Config,
    days: Annotated[int | None, typer.Option(min=0, help="serving.feedback.retention_days unless given.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and remove nothing.")] = False,
    overrides: Set = None,
    debug: Debug = False,
) -> None:
    """Remove answers that are past their days now; the service does it by itself every hour."""
    from cluster import feedback

    tell(feedback.purge(read(config, overrides), days, dry_run=dry_run))


@feedback_app.command("key")
def feedback_key(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Of serving.feedback.key_file.")], debug: Debug = False
) -> None:
    """Put a new key for texts on top of a file, which is made where it is not there."""
    from cluster import feedback

    tell(feedback.key(path))


@feedback_app.command("rotate")
def feedback_rotate(config: Config, overrides: Set = None, debug: Debug = False) -> None:
    """Encrypt all kept texts with the first key of the file, so that the older ones may go."""
    from cluster import feedback

    tell(feedback.rotate(read(config, overrides)))


@feedback_app.command("migrate")
def feedback_migrate(
    config: Config,
    step: Annotated[str, typer.Option("--to", help="A step, head, or base, which drops everything.")] = "head",
    overrides: Set = None,
    debug: Debug = False,
) -> None:
    """Bring the store's schema to another step; the service does so by itself when it starts."""
    from cluster import feedback

    tell(feedback.migrate(read(config, overrides), step))


def tell(lines: Iterable[str]) -> None:
    """Print each line as it comes."""
    for line in lines:
        typer.echo(line)


@keys_app.command("create")
def create_key(
    config: Config,
    name: Annotated[str, typer.Option(help="Who or what will use the key.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="generate, improve, chat, feedback, models, docs, acute; all but acute unless given."),
    ] = None,
    expires: Annotated[str, typer.Option(help="90d, 12h, 2027-01-31 or never.")] = "365d",
    rate: Annotated[int | None, typer.Option(min=1, help="Most requests a minute, in place of the setting.")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Most requests at once, likewise.")] = None,
    overrides: Set = None,
    debug: Debug = False,
) -> None:
    """Make a key; it is printed alone on the last line, this once."""
    from cluster import keys

    made = keys.create(
        read(config, overrides),
        console,
        name,
        scopes=scope,
        expires=expires,
        requests_per_minute=rate,
        concurrent=concurrent,
    )
    typer.echo(made)


@keys_app.command("list")
def list_keys(
    config: Config,
    as_json: Annotated[bool, typer.Option("--json", help="Print the keys as JSON.")] = False,
    overrides: Set = None,
    debug: Debug = False,
) -> None:
    """Show every key by its id: whose, for what, until when; never the key itself."""
    from cluster import keys

    keys.show(read(config, overrides), as_json=as_json)


@keys_app.command("revoke")
def revoke_key(
    config: Config,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `llumi keys list` shows it.")],
    overrides: Set = None,
    debug: Debug = False,
) -> None:
    """End a key for good; a service that runs refuses it within a second."""
    from cluster import keys

    keys.revoke(read(config, overrides), key_id)


@rollout_app.command("start")
def start_rollout(
    config: Config,
    model: RolledOut,
    to: Annotated[str, typer.Option("--to", metavar="MODEL", help="A folder, s3:// or gs://, as nodes see it.")],
    share: Annotated[float, typer.Option(min=0, max=1, help="Share of the requests.")] = 0.05,
    overrides: Set = None,
    debug: Debug = False,
) -> None:
    """Load another version beside the one that runs, and give it a share of the requests."""
    from cluster import rollout

    rollout.start(read(config, overrides), model, to, share, console, debug=Mode.debug)


@rollout_app.command("share")
def move_rollout(
    config: Config,
    model: RolledOut,
    share: Annotated[float, typer.Argument(metavar="SHARE", min=0, max=1, help="Share of the requests.")],
    overrides: Set = None,
    debug: Debug = False,
) -> None:
    """Give the new version another share of the requests."""
    from cluster import rollout

    rollout.move(read(config, overrides), model, share, console, debug=Mode.debug)


@rollout_app.command("promote")
def promote_rollout(config: Config, model: RolledOut, overrides: Set = None, debug: Debug = False) -> None:
    """Give the new version all requests; the old one stays loaded."""
    from cluster import rollout

    rollout.promote(read(config, overrides), model, console, debug=Mode.debug)


@rollout_app.command("back")
def take_rollout_back(config: Config, model: RolledOut, overrides: Set = None, debug: Debug = False) -> None:
    """Give the new version no more requests, at once; before or after it was promoted."""
    from cluster import rollout

    rollout.back(read(config, overrides), model, console, debug=Mode.debug)


@rollout_app.command("finish")
def finish_rollout(config: Config, model: RolledOut, overrides: Set = None, debug: Debug = False) -> None:
    """Settle on the version that has the requests, and take the other down."""
    from cluster import rollout

    rollout.finish(read(config, overrides), model, console, debug=Mode.debug)


@rollout_app.command("show")
def show_rollout(config: Config, overrides: Set = None, debug: Debug = False) -> None:
    """Print each model's versions and their shares."""
    from cluster import rollout

    rollout.show(read(config, overrides), debug=Mode.debug)
