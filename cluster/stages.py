"""The way the data goes, as one table: the drawing of the README in code.

``table`` lists every stage in order, from dumps to the report; ``Way`` holds what each
reads and the rules by which a stage does not apply. The table runs nothing itself.
"""

from collections.abc import Sequence
from pathlib import Path

from cluster.stage import Inputs, SampleStage, Stage
from configs.errors import ConfigError, MissingInput, StageOrderError, UsageError
from configs.settings import Settings
from configs.training import MODELS, SCRATCH
from pipelines import manifest
from pipelines.layout import Layout
from pipelines.manifest import Input


def table(settings: Settings) -> list[Stage]:
    """Every stage in order."""
    way = Way(settings)
    at = way.at
    corpus, pairs, feedback = "llumi corpus CONFIG", "llumi pairs CONFIG", "llumi feedback CONFIG"
    index = "llumi index CONFIG"
    base, evaluate = "llumi run CONFIG --until base", "llumi evaluate CONFIG"
    return [
        SampleStage("sample", "pipelines.sample.build", at.sample, dict, corpus, way.no_sample, needs=None),
        Stage("corpus", "pipelines.corpus.build", at.threads, way.dumps, corpus, needs="dumps"),
        Stage("retrieval", "pipelines.retrieval.build", at.retrieval, way.threads, index, way.no_retrieval),
        Stage("exposure", "pipelines.pairs.exposure", at.exposure, way.threads, pairs),
        Stage("revisions", "pipelines.pairs.im.build", at.revisions, way.ranked, pairs),
        Stage("sft", "pipelines.pairs.sft", at.sft, way.revised, pairs),
        Stage("pairs", "pipelines.pairs.build", at.pairs, way.paired, pairs),
        Stage("base", "pipelines.training.base", at.base, way.threads, base, way.base_given, "training"),
        *(stage for model in MODELS for name in ("sft", "dpo1") for stage in way.training(model, name)),
        Stage("feedback/ratings", "pipelines.feedback.panel", at.ratings, way.truth, feedback, way.no_panel),
        Stage("feedback/pairs", "pipelines.feedback.build", at.rated_pairs, way.ratings, feedback, way.no_ratings),
        *(stage for model in MODELS for stage in way.training(model, "dpo2")),
        *(way.merge(model) for model in MODELS),
        Stage("evaluation", "pipelines.evaluation.build", at.evaluation, way.everything, evaluate),
    ]


class Way:
    """What each stage reads under one configuration, and when it does not apply."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.at = Layout(Path(settings.output))

    def training(self, model: str, stage: str) -> list[Stage]:
        """Tokenising the rows of one training stage, for DPO the reference's view of them, and training on them."""
        words = {"model": model, "stage": stage}
        name, command = f"train/{model}/{stage}", self.command(model, stage)
        tokens, adapter = self.at.tokens(model, stage), self.at.adapter(model, stage)
        reference = self.at.reference(model, stage)
        rows = {"sft": self.at.sft, "dpo1": self.at.pairs, "dpo2": self.at.rated_pairs}[stage]
        before = {"dpo1": "sft", "dpo2": "dpo1"}.get(stage)

        def unless() -> str | None:
            return self.no_rated_pairs(model) if stage == "dpo2" else None

        def read_tokens() -> Inputs:
            start: Inputs = {"start": self.at.adapter(model, before)} if before else {}
            return {"tokens": tokens, "base": self.base(), **start}

        def read() -> Inputs:
            return {**read_tokens(), **({"reference": reference} if before else {})}

        def read_rows() -> Inputs:
            return {"rows": rows, "base": self.base()}

        code = "pipelines.training"
        stages = [
            Stage(f"{name}/tokens", f"{code}.tokens", tokens, read_rows, command, unless, "data", words),
            Stage(f"{name}/reference", f"{code}.reference", reference, read_tokens, command, unless, "training", words),
            Stage(f"{name}/adapter", f"{code}.build", adapter, read, command, unless, "training", words),
        ]
        return stages if before else [stages[0], stages[2]]

    def merge(self, model: str) -> Stage:
        """The last adapter of a model folded into the base's weights."""

        def read() -> Inputs:
            return {"base": self.base(), "adapter": self.at.adapter(model, self.trained(model)[-1])}

        output, command = self.at.model(model), "llumi run CONFIG --until models"
        return Stage(
            f"models/{model}", "pipelines.training.merge", output, read, command, needs=None, words={"model": model}
        )

    def trained(self, model: str) -> list[str]:
        """The training stages that apply to a model, in order."""
        return ["sft", "dpo1"] if self.no_rated_pairs(model) else ["sft", "dpo1", "dpo2"]

    def command(self, model: str, stage: str) -> str:
        """The command that makes one training stage."""
        return f"llumi train CONFIG --model {model} --stage {stage}"

    # What the stages read.

    def dumps(self) -> Inputs:
        """The dump files: the sample's, or those that the globs name."""
        from pipelines.corpus.sources import located

        corpus = self.settings.corpus
        globs = {"posts": corpus.posts, "comments": corpus.comments}
        if self.settings.sample:
            globs = {"posts": (str(self.at.sample / "RS_*.zst"),), "comments": (str(self.at.sample / "RC_*.zst"),)}
        for name, patterns in globs.items():
            if not patterns:
                example = f"--set 'corpus.{name}=[\"R*.zst\"]'"
                raise ConfigError(f"corpus.{name} is empty: name dump files, for example {example}")
        return {name: located(patterns) for name, patterns in globs.items()}  # type: ignore[misc]

    def threads(self) -> Inputs:
        """The threads."""
        return {"threads": self.at.threads}

    def shown(self) -> Inputs:
        """What prompts show as examples, where they do."""
        return {"retrieval": self.at.retrieval} if self.settings.retrieval.examples else {}

    def ranked(self) -> Inputs:
        """The threads and what the pair rules know of arrival."""
        return {"threads": self.at.threads, "exposure": self.at.exposure, **self.shown()}

    def revised(self) -> Inputs:
        """The threads and what drafts in them should become."""
        return {"threads": self.at.threads, "revisions": self.at.revisions, **self.shown()}

    def paired(self) -> Inputs:
        """What preference pairs are made of, and the sample's truth for their report."""
        truth = {"truth": self.at.sample / "truth.parquet"} if self.settings.sample else {}
        return {**self.ranked(), **self.revised(), **truth}

    def truth(self) -> Inputs:
        """The threads and the sample's truth."""
        return {"threads": self.at.threads, "truth": self.at.sample / "truth.parquet"}

    def ratings(self) -> Inputs:
        """The threads and every rating file: the panel's and people's."""
        from pipelines.corpus.sources import expand

        given = [Path(path) for path in expand(self.settings.feedback.ratings)]
        panel = [self.at.ratings / "ratings.jsonl"] if self.settings.feedback.panel else []
        return {"threads": self.at.threads, "ratings": [*panel, *given], **self.shown()}

    def base(self) -> Input:
        """The base model: made here, or by name."""
        return self.at.base if self.settings.model.base == SCRATCH else self.settings.model.base

    def everything(self) -> Inputs:
        """What the report is about: every output there is, under its own name."""
        at = self.at
        found: Inputs = {"threads": at.threads, "exposure": at.exposure, "sft": at.sft, "pairs": at.pairs}
        found |= {"base": self.base(), **self.shown()}
        if self.settings.sample:
            found |= {"sample": at.sample, "truth": at.sample / "truth.parquet"}
        if self.settings.feedback.panel:
            found["panel"] = at.ratings
        if not self.no_ratings():
            found["rated_pairs"] = at.rated_pairs
        for model in MODELS:
            for stage in self.trained(model):
                found[f"tokens/{model}/{stage}"] = at.tokens(model, stage)
                found[f"adapters/{model}/{stage}"] = at.adapter(model, stage)
        return found

    # When a stage does not apply.

    def no_sample(self) -> str | None:
        """Only where the configuration asks for the built-in sample."""
        return None if self.settings.sample else "no sample: the dumps of corpus.posts and corpus.comments are read"

    def no_retrieval(self) -> str | None:
        """Only where prompts take examples or something else looks posts up."""
        return None if self.settings.retrieval.enabled else "retrieval is off: retrieval.examples is 0"

    def base_given(self) -> str | None:
        """Only where the base model is made from the corpus."""
        base = self.settings.model.base
        return None if base == SCRATCH else f"model.base is {base}"

    def no_panel(self) -> str | None:
        """Only where a panel of raters is simulated."""
        return None if self.settings.feedback.panel else "no panel: feedback.panel is not set"

    def no_ratings(self) -> str | None:
        """Only where ratings exist."""
        some = self.settings.feedback.panel or self.settings.feedback.ratings
        return None if some else "no ratings: DPO2 skipped"

    def no_rated_pairs(self, model: str) -> str | None:
        """Only where ratings exist and left pairs of this model to train on."""
        if reason := self.no_ratings():
            return reason
        if manifest.read(self.at.rated_pairs) is None or rows(self.at.rated_pairs / model / "train"):
            return None
        return f"no rated pairs for {model}: DPO2 skipped"


def rows(folder: Path) -> int:
    """Rows in a folder's Parquet files."""
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))


def select(stages: Sequence[Stage], prefix: str) -> list[Stage]:
    """The stages that ``prefix`` names; raises UsageError naming the known ones."""
    chosen = [stage for stage in stages if stage.matches(prefix.rstrip("/"))]
    if not chosen:
        groups = list(dict.fromkeys(stage.name.split("/")[0] for stage in stages))
        raise UsageError(
            f"no stage {prefix}; stages are: {', '.join(groups)}, and below those for example train/gm/sft"
        )
    return chosen


def until(stages: Sequence[Stage], prefix: str | None) -> list[Stage]:
    """The stages up to and with the last one that ``prefix`` names."""
    return list(stages) if prefix is None else list(stages[: stages.index(select(stages, prefix)[-1]) + 1])


def check_order(stage: Stage, stages: Sequence[Stage], config: str, coming: Sequence[Stage] = ()) -> None:
    """Raises StageOrderError naming the command that makes what this stage reads and does not find.

    What the stages in ``coming`` write need not be there yet.
    """
    for value in stage.inputs().values():
        for path in value if isinstance(value, list) else [value]:
            source = next((s for s in stages if isinstance(path, Path) and within(path, s.output)), None)
            if source and source not in coming and manifest.read(source.output) is None:
                command = source.command.replace("CONFIG", config)
                raise StageOrderError(
                    f"{stage.name} reads {source.output}, which is not complete: run `{command}` first"
                )


def check_plan(plan: Sequence[Stage], stages: Sequence[Stage], config: str) -> None:
    """``check_order`` for a whole plan before it starts, as far as its inputs can be looked up already."""
    for stage in plan:
        if stage.unless():
            continue
        try:
            check_order(stage, stages, config, coming=plan)
        except MissingInput:
            if all(s.name != "sample" or s.unless() for s in plan):
                raise
            # the dumps of the sample are yet to be written


def within(path: Path, folder: Path) -> bool:
    """Whether ``path`` is ``folder`` or lies in it."""
    return path == folder or folder in path.parents
