"""The ``llumi`` command: each stage of the way alone, all of them in order, the service, jobs.

Ray, torch and transformers are imported inside the commands only, so that help is there at
once. ``main`` turns every failure into one line on stderr and an exit code: 2 for what was
asked wrongly, 1 for data and everything else, 130 for Ctrl-C.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from cluster import failures, session
from cluster.groups import feedback_app, keys_app, rollout_app
from cluster.options import Config, Debug, Mode, Set, alone, console, read
from cluster.running import running_app
from configs.training import SCRATCH, ModelName, StageName

app = typer.Typer(
    name="llumi",
    help="From Reddit dumps to two preference-tuned models behind an endpoint.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def show_version(value: bool) -> None:
    """Print the version and end."""
    if value:
        from pipelines.manifest import distribution_version

        typer.echo(distribution_version())
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")]

app.add_typer(running_app)
app.add_typer(keys_app)
app.add_typer(rollout_app)
app.add_typer(feedback_app, name="feedback")


@app.callback()
def _llumi(version: Version = False, debug: Debug = False) -> None:
    pass


@app.command()
def sample(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    threads: Annotated[int, typer.Option(min=10, help="Posts of the simulated community.")] = 1200,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 7,
    debug: Debug = False,
) -> None:
    """Write the built-in sample: Reddit dumps of an invented community, with known truth."""
    from configs.corpus import SampleSettings
    from pipelines.sample.build import build

    made = build(SampleSettings(threads=threads, seed=seed), out)
    for kind, count in made.rows.items():
        typer.echo(f"{kind}: {count.kept}")
    typer.echo(str(out))


@app.command()
def corpus(config: Config, overrides: Set = None, debug: Debug = False) -> None:
    """Dumps to threads: read, clean, scrub, de-duplicate, join comments to posts."""
    settings = read(config, overrides)
    alone(settings, config, ["sample", "corpus"] if settings.sample else ["corpus"])


@app.command()
def index(config: Config, overrides: Set = None, debug: Debug = False) -> None:
    """Index the posts with well-received replies, and look up the examples of every prompt."""
    alone(read(config, overrides), config, ["retrieval"])


@app.command()
def pairs(config: Config, overrides: Set = None, debug: Debug = False) -> None:
    """Threads to SFT rows and preference pairs, for GM and for IM, with a report of what the pair rule selects on."""
    alone(read(config, overrides), config, ["exposure", "revisions", "sft", "pairs"])


@app.command()
def revisions(
    config: Config,
    budget: Annotated[bool, typer.Option("--budget", help="Show what the teacher would cost and ask nothing.")] = False,
    overrides: Set = None,
    debug: Debug = False,
) -> None:
    """What drafts should become, for IM: the better reply that is likest to them, or a teacher's revision."""
    settings = read(config, overrides)
    if budget:
        from cluster.budget import budget as budget_of

        typer.echo(budget_of(settings, config, console, debug=Mode.debug))
    else:
        alone(settings, config, ["exposure", "revisions"])


@app.command()
def train(
    config: Config,
    model: Annotated[ModelName, typer.Option(help="Which model.")],
    stage: Annotated[StageName, typer.Option(help="Which training stage.")],
    overrides: Set = None,
    debug: Debug = False,
) -> None:
    """Train one stage of one model: SFT, DPO on votes, DPO on ratings."""
    settings = read(config, overrides)
    base = ["base"] if settings.model.base == SCRATCH else []
    alone(settings, config, [*base, f"train/{model}/{stage}"])


@app.command()
def plan(
    config: Config,
    gpu: Annotated[str | None, typer.Option(metavar="NAME", help="H100, A100-80, L40S, ...")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Machines; those of training.workers unless given.")] = None,
    gpus_per_node: Annotated[int | None, typer.Option(min=1, help="GPUs of each; 8 unless given.")] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Dollars an hour and GPU, for the one named.")] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Rows of every stage, where none are made yet.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    overrides: Set = None,
    debug: Debug = False,
) -> None:
    """What training will take - memory, hours, dollars, disk - and what would make it fit; nothing is started."""
    from cluster import plan as planning
    from cluster.plan_json import as_json as json_of

    settings = read(config, overrides)
    found = planning.plan(settings, name=gpu, nodes=nodes, gpus_per_node=gpus_per_node, price=price, rows=rows)
    if as_json:
        typer.echo(json_of(found))
    else:
        planning.show(found, planning.printed())


@app.command()
def evaluate(config: Config, overrides: Set = None, debug: Debug = False) -> None:
    """Measure every stage on held-out data and write report.html."""
    alone(read(config, overrides), config, ["evaluation"])


@app.command()
def run(
    config: Config,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage, e.g. pairs.")] = None,
    force: Annotated[
        list[str] | None, typer.Option(metavar="STAGE", help="Make this again, e.g. train/gm; may be repeated.")
    ] = None,
    overrides: Set = None,
    debug: Debug = False,
) -> None:
    """Every stage in order; what is complete is skipped."""
    from cluster.checks import check_settings
    from cluster.runner import Runner
    from cluster.stages import select, table
    from cluster.stages import until as up_to

    settings = read(config, overrides)
    stages = table(settings)
    plan = up_to(stages, until)
    again = [stage for prefix in force or () for stage in select(stages, prefix)]
    check_settings(settings)
    Runner(settings, stages, config=config, console=console, debug=Mode.debug).run(plan, force=again)
    typer.echo(settings.output)


@app.command()
def forget(
    config: Config,
    ids: Annotated[Path, typer.Argument(metavar="IDS", help="A file with a line for each t3_, t1_ or u/ to remove.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go and change nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    overrides: Set = None,
    debug: Debug = False,
) -> None:
    """Remove posts, comments or authors from every output, and keep them out of later builds.

    Lists the models that were trained on them. Ends with 3 where something is left to do by hand.
    """
    from cluster.forget import forget as forget_ids

    raise typer.Exit(forget_ids(read(config, overrides), config, ids, dry_run=dry_run, as_json=as_json))


@app.command()
def export(
    config: Config,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A folder, or s3://bucket/folder.")],
    model: Annotated[
        ModelName | None, typer.Option(help="Which model; both, in folders below TARGET, unless given.")
    ] = None,
    stage: Annotated[StageName | None, typer.Option(help="After which stage; the last unless given.")] = None,
    merged: Annotated[
        bool | None, typer.Option("--merged/--adapter", help="A whole model, or the adapter alone.", show_default=False)
    ] = None,
    layout: Annotated[
        Literal["plain", "hub"], typer.Option(help="hub: with what a Hugging Face repository has; nothing is uploaded.")
    ] = "plain",
    forgotten: Annotated[
        bool, typer.Option("--forgotten", help="Export it even where rows it was trained on were forgotten since.")
    ] = False,
    overrides: Set = None,
    debug: Debug = False,
) -> None:
    """Copy trained models out: weights, tokenizer, chat template, sampling settings, card, hashes.

    Replaces an earlier export of the same model, and nothing else.
    """
    from cluster.export import export as export_models

    settings = read(config, overrides)
    for delivered in export_models(
        settings,
        target,
        model=model,
        stage=stage,
        form=None if merged is None else "merged" if merged else "adapter",
        layout=layout,
        forgotten=forgotten,
        console=console,
    ):
        typer.echo(delivered.target)


@app.command("version")
def version_command() -> None:
    """Print the version."""
    show_version(True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: ends the process with the exit code."""
    Mode.debug = False
    session.prepare_environment()
    try:
        app(args=None if arguments is None else list(arguments), prog_name="llumi")
    except (Exception, KeyboardInterrupt) as error:
        sys.exit(failures.report(error, Mode.debug))


if __name__ == "__main__":
    main()
