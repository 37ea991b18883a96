"""What is done to each output, in the order in which they were made from each other; see ``forget`` for why."""

import hashlib
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from configs.settings import Settings
from pipelines import manifest
from pipelines.card import card
from pipelines.forgetting import kept as kept_list
from pipelines.forgetting import loose, rewriting, trained
from pipelines.forgetting.kept import REASON, Forgotten
from pipelines.forgetting.lineage import Output
from pipelines.forgetting.report import Action, Change, Outside, TrainedModel
from pipelines.forgetting.rewriting import Lost
from pipelines.forgetting.scope import Scope
from pipelines.forgetting.staging import Staging
from pipelines.forgetting.trained import MARK, Taint, tainted
from pipelines.manifest import CARD, FILE, Manifest

log = logging.getLogger("llumi.forget")

ROWS = frozenset({"sft_rows", "pairs", "rated_pairs", "revisions"})
"""Stages whose outputs are rows made of threads."""
NUMBERS = frozenset({"exposure"})
"""Stages whose outputs hold no text and no id."""
SOURCES = frozenset({"sample"})
"""Stages whose outputs are dumps."""
CHANGED = (
    "Rows were removed by `llumi forget` since it was made; figures other than counts of rows are those of the build."
)


@dataclass
class Forgetting:
    """One run over all outputs, each after those it was made from."""

    settings: Settings
    staging: Staging
    scope: Scope
    keep_out: Forgotten
    ratings: list[Path]
    config: str
    when: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    changes: list[Change] = field(default_factory=list)
    models: list[TrainedModel] = field(default_factory=list)
    outside: list[Outside] = field(default_factory=list)
    lost: dict[Path, Lost] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    """Fingerprints of outputs before, and what they become."""
    removed: set[Path] = field(default_factory=set)
    held: dict[Path, int] = field(default_factory=dict)
    """Removed rows among tokenised training rows, by folder."""
    to_validate: dict[Path, pa.Table] = field(default_factory=dict)
    """Ids of the rows taken out of the validation split of tokens, by folder."""
    tainted: dict[Path, Taint] = field(default_factory=dict)
    threads: Output | None = None
    corpus: Manifest | None = None
    """The threads' manifest as it becomes."""

    @property
    def root(self) -> Path:
        """The run's folder."""
        return self.staging.root

    def every(self, found: Sequence[Output], threads: Output | None) -> None:
        """Prepare everything."""
        self.threads = threads
        # Rated pairs name the rating files and not the panel's folder, so their order is not in the manifests.
        first = {"corpus": 0, "panel": 1}
        for output in sorted(found, key=lambda output: first.get(output.stage, 2)):
            if output.stage not in SOURCES:
                self.handler(output)(output)
        changes, self.outside = loose.rating_files(self.staging, self.ratings, self.scope)
        self.changes += [*changes, *loose.answers(self.staging, self.scope)]
        if self.lost:
            self.changes += loose.checkpoints(self.staging)
        self.staging.place(self.root / kept_list.FILE).write_text(self.keep_out.text(), encoding="utf-8")
        if (self.root / FILE).is_file() and self.moved:
            self.staging.remove(self.root / FILE)

    def handler(self, output: Output) -> Callable[[Output], object]:
        """What is done to an output, by its stage."""
        stage = output.stage
        if stage == "corpus":
            return self.take_threads if output is self.threads else self.remove
        if stage in trained.STAGES:
            return self.weights
        if stage in NUMBERS:
            return self.keep
        if stage in {"tokens", "reference", "evaluation"}:
            return {"tokens": self.tokens, "reference": self.reference, "evaluation": self.evaluation}[stage]
        if self.threads is None or not output.came_from(self.threads):
            return self.remove
        if stage in ROWS:
            return self.take_rows
        return {"panel": self.take_ratings, "retrieval": self.take_index}.get(stage, self.unknown)

    # Data.

    def take_threads(self, output: Output) -> None:
        """Posts and comments; the list's digest enters the settings."""
        folder = self.staging.copy(output.path)
        lost = rewriting.take_from_threads(folder, self.scope)
        settings = output.made.settings | {REASON: self.keep_out.digest()}
        self.corpus = self.settle(output, lost, folder, output.made.model_copy(update={"settings": settings}))

    def take_rows(self, output: Output) -> None:
        """Rows of prompts and replies."""
        folder = self.staging.copy(output.path)
        shown = output.stage == "rated_pairs"
        self.settle(output, rewriting.take_from_rows(folder, self.scope, shown_to_raters=shown), folder)

    def take_ratings(self, output: Output) -> None:
        """Rating files that were made here."""
        folder = self.staging.copy(output.path)
        before = manifest.fingerprint(self.ratings) if self.ratings else None
        self.settle(output, rewriting.take_from_ratings(folder, self.scope), folder)
        if before is not None:
            prints = "".join(self.staged_fingerprint(path) for path in self.ratings)
            self.moved[before] = hashlib.sha256(prints.encode()).hexdigest()

    def staged_fingerprint(self, path: Path) -> str:
        """The fingerprint that a file will have."""
        staged = self.staging.staged(path)
        return manifest.file_fingerprint(path, staged if staged.is_file() else path)

    def take_index(self, output: Output) -> None:
        """The retrieval index and its examples; a copy of its own, since a database may write into its files."""
        folder = self.staging.place(output.path)
        shutil.copytree(output.path, folder)
        self.settle(output, rewriting.take_from_index(folder, self.scope), folder)

    def settle(self, output: Output, lost: Lost, folder: Path, made: Manifest | None = None) -> Manifest:
        """Counts, inputs, key and card of a rewritten output; returns its manifest as it becomes."""
        made = made or output.made
        if "threads" not in made.rows:
            lost.rows.pop("threads", None)
        if not lost:
            self.staging.unplace(output.path)
            return self.keep(output, made)
        self.lost[output.path] = lost
        figures = rewriting.refigured(made, folder, lost)
        rows = {kind: n for kind, n in lost.rows.items() if n}
        events = [*figures.get(REASON, {}).get("times", []), {"when": self.when, "rows": rows}]
        update: dict[str, Any] = {
            "rows": rewriting.recounted(made.rows, lost),
            "figures": figures | {REASON: {"times": events}},
            "notes": [*(note for note in made.notes if note != CHANGED), CHANGED],
        }
        for name in (CARD, FILE):
            (folder / name).unlink(missing_ok=True)
        has_card = (output.path / CARD).is_file()
        made = manifest.write(folder, self.relinked(made.model_copy(update=update)), self.card if has_card else None)
        self.moved[output.fingerprint] = manifest.fingerprint(folder)
        self.tell(output, "rows", lost)
        return made

    def card(self, made: Manifest) -> str:
        """The data card, with the threads as they become."""
        corpus = made if made.stage == "corpus" else self.corpus
        return card(made, corpus, self.settings.card, simulated=self.settings.sample is not None)

    # What is kept, and what goes as a whole.

    def keep(self, output: Output, made: Manifest | None = None) -> Manifest:
        """An output that loses nothing: only what it was made from has other fingerprints now."""
        made = self.relinked(made or output.made)
        if made != output.made:
            made = self.replace_manifest(output, made)
            self.moved[output.fingerprint] = hashlib.sha256(manifest.dump(made).encode()).hexdigest()
        self.tell(output, "kept")
        return made

    def relinked(self, made: Manifest) -> Manifest:
        """The manifest with the fingerprints that its inputs become, and its new key."""
        inputs = {name: self.moved.get(value, value) for name, value in made.inputs.items()}
        key = manifest.key_of(made.stage, made.settings, inputs)
        return made if key == made.key else made.model_copy(update={"inputs": inputs, "key": key})

    def replace_manifest(self, output: Output, made: Manifest) -> Manifest:
        """Stage a manifest, and the card that goes with it, alone; returns it with the card's size."""
        if (output.path / CARD).is_file():
            text = self.card(made)
            self.staging.place(output.path / CARD).write_text(text, encoding="utf-8")
            made = made.model_copy(update={"files": made.files | {CARD: len(text.encode())}})
        self.staging.place(output.path / FILE).write_text(manifest.dump(made), encoding="utf-8")
        return made

    def remove(self, output: Output, why: str = "it was not made from the threads that are there") -> None:
        """The whole folder; the next run makes it again."""
        self.staging.remove(output.path)
        self.removed.add(output.path)
        self.tell(output, "removed", why=why)

    def unknown(self, output: Output) -> None:
        """An output of a kind that is not known here: it goes where anything it was made from changed."""
        if any(source.path in self.lost or source.path in self.removed for source in output.sources.values()):
            self.remove(output, "it was made from rows that were removed")
        else:
            self.keep(output)

    # Training and what follows.

    def tokens(self, output: Output) -> None:
        """Tokenised rows: gone as a whole where a training row goes, since these are made again in any case."""
        rows, model = output.sources.get("rows"), output.words()[0]
        if rows is None or rows.path in self.removed:
            self.held[output.path] = sum(count.kept for count in output.made.rows.values())
            self.remove(output, "the rows it was made from are not there any more")
            return
        ids = self.lost[rows.path].ids if rows.path in self.lost else {}
        held = trained.held(output.path, ids, model)
        if held["train"]:
            self.held[output.path] = held["train"]
            self.remove(output, f"it held {held['train']} removed training rows")
        elif held["validation"]:
            self.to_validate[output.path] = ids[model, "validation"]
            self.take_validation(output, ids[model, "validation"])
        else:
            self.follow(output, "the base it was made for is trained again")

    def reference(self, output: Output) -> None:
        """What DPO's reference thinks of tokenised rows: row by row beside them, so it goes as they go."""
        tokens = output.sources.get("tokens")
        if tokens is None or tokens.path in self.removed:
            self.remove(output, "the tokens it was made from are not there any more")
        elif tokens.path in self.to_validate:
            self.take_validation(output, self.to_validate[tokens.path])
        else:
            self.follow(output, "the model it was made with is trained again")

    def take_validation(self, output: Output, removed: pa.Table) -> None:
        """Take removed rows out of the validation split, which no weights depend on."""
        folder = self.staging.copy(output.path)
        self.settle(output, trained.take_held(folder, "validation", removed), folder)

    def follow(self, output: Output, why: str) -> None:
        """An output that loses nothing: kept, and current unless it was made with weights that are trained again."""
        if any(source.path in self.tainted for source in output.sources.values()):
            self.tell(output, "kept", why=why)
        else:
            self.keep(output)

    def weights(self, output: Output) -> None:
        """Weights: marked where removed rows went into them."""
        taint = tainted(output, self.lost, self.held, self.tainted)
        if taint is None:
            self.keep(output)
            return
        self.tainted[output.path] = taint
        mark = {"when": self.when, "rows": taint.rows, "through": taint.through}
        notes = [note for note in output.made.notes if note != trained.NOTE] + [trained.NOTE]
        figures = (
            {MARK: mark} | output.made.figures if MARK in output.made.figures else output.made.figures | {MARK: mark}
        )
        self.replace_manifest(output, output.made.model_copy(update={"figures": figures, "notes": notes}))
        self.tell(output, "trained", why=taint.reason())
        name, command = str(output.path.relative_to(self.root)), f"llumi run {self.config}"
        self.models.append(TrainedModel(output=name, rows=taint.rows, through=taint.through, command=command))

    def evaluation(self, output: Output) -> None:
        """The report and its texts: gone where removed rows are among what it shows."""
        if self.threads is None or not output.came_from(self.threads):
            self.remove(output)
        elif any(lost.splits["test"] for lost in self.lost.values()):
            self.remove(output, "it shows test posts or pairs that were removed")
        else:
            self.follow(output, "it is about models that are to be trained again")

    def tell(self, output: Output, action: Action, lost: Lost | None = None, why: str = "") -> None:
        """Note for the report what became of an output."""
        rows = {kind: n for kind, n in lost.rows.items() if n} if lost else {}
        counts = output.made.rows
        of = {kind: counts[known].kept for kind in rows if (known := rewriting.counted_as(kind, counts))}
        name = str(output.path.relative_to(self.root))
        self.changes.append(Change(output=name, stage=output.made.stage, action=action, rows=rows, of=of, why=why))
