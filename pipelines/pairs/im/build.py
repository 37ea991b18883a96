"""The stage ``revisions``: what drafts should become, found among a community's replies or written by a teacher.

    revisions/{community,teacher}/part-00000.parquet      columns REVISION, one file for each of the threads

SFT rows and preference pairs of IM are rendered from these. The way of the teacher: requests
are written beside the draft of the output, the budget is shown and compared with the limits,
what the store lacks is asked, and the answers are judged. Killed anywhere in it, a rerun
asks for no answer twice, and the output is whole or absent like any other.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from configs.errors import ConfigError, DataError
from configs.improvement import TeacherSettings
from configs.load import to_yaml
from configs.prompts import fingerprint
from configs.retrieval import LEXICAL
from configs.settings import Settings
from pipelines.card import card_of
from pipelines.corpus.notes import Account, record_rows
from pipelines.layout import Layout
from pipelines.manifest import Draft, Input, Manifest, fingerprints, writing
from pipelines.pairs.exposure_model import Exposure
from pipelines.pairs.im import store, work
from pipelines.pairs.im.budget import Budget, budget_of, require_within
from pipelines.pairs.im.floor import QUANTILES, Floor
from pipelines.pairs.im.in_house import require_in_house
from pipelines.pairs.im.planning import binned_quantiles
from pipelines.pairs.im.schema import COMMUNITY, TEACHER
from pipelines.pairs.im.teacher import api_key, ask_all
from pipelines.pairs.rules import cautions, rule_of
from pipelines.pairs.schema import SPLITS
from pipelines.retrieval import embed

log = logging.getLogger("llumi.revisions")

STAGE = "revisions"
LEXICAL_NOTE = (
    "Drafts and revisions were compared by hashed words, which find the same words and not the same meaning;"
    " set retrieval.embedder.model to a sentence-transformers model for a better join."
)


def depends(settings: Settings) -> dict[str, Any]:
    """The settings that revisions depend on; of the teacher not where and how fast it is asked."""
    ours = settings.improvement
    found: dict[str, Any] = {
        "improvement": ours.model_dump(mode="json", exclude={"teacher"}),
        "pairs": settings.pairs.model_dump(mode="json"),
        "embedder": embed.fingerprint(settings.retrieval.embedder),
    }
    if TEACHER in ours.sources and ours.teacher:
        found["teacher"] = store.sampling(ours.teacher) | {"max_per_post": ours.teacher.max_per_post}
        found["prompt"] = fingerprint(settings.prompts.im)
        found["examples"] = settings.retrieval.model_dump(mode="json") if settings.retrieval.examples else None
    return found


def build(settings: Settings, inputs: Mapping[str, Input], output: Path) -> Manifest:
    """Revisions of the drafts in the ``threads`` of ``inputs``, by the rule and its ``exposure`` model.

    Raises DataError where the training split gets none, ConfigError where the teacher is not
    in-house or would exceed its budget, EngineError where it does not answer.
    """
    folders = {name: Path(str(value)) for name, value in inputs.items()}
    with writing(
        output,
        stage=STAGE,
        settings=depends(settings),
        inputs=fingerprints(inputs),
        resolved=to_yaml(settings),
        card=card_of(settings, inputs),
    ) as draft:
        model = Exposure.read(folders["exposure"])
        rule_of(settings.pairs, model)
        draft.notes += cautions(settings.pairs, model)
        taught = TEACHER in settings.improvement.sources
        if taught:
            ready(settings)
        floor = work.measure_floor(settings, folders["threads"])
        account = work.plan(settings, folders, floor.value, draft.path)
        if taught:
            merge(account, teach(settings, draft, floor.value))
        record(draft, account, floor, settings)
    assert draft.manifest is not None
    return draft.manifest


def preview(settings: Settings, inputs: Mapping[str, Input], scratch: Path) -> Budget:
    """What the teacher would be asked; asks nothing. ``scratch`` is an empty folder that all nodes reach."""
    ready(settings)
    folders = {name: Path(str(value)) for name, value in inputs.items()}
    work.plan(settings, folders, None, scratch)
    return budget(settings, scratch)


def teach(settings: Settings, draft: Draft, floor: float) -> Account:
    """Have the planned requests answered and the answers judged."""
    teacher, answers = ready(settings), Layout(Path(settings.output)).teacher
    found = budget(settings, draft.path)
    log.warning(found.line())
    require_within(found, teacher)
    failures: Counter[str] = Counter()
    if found.requests:
        files = work.parts(draft.path / work.REQUESTS)
        failures = ask_all(files, answers, teacher, api_key(teacher), found.requests)
    account = work.judge_all(settings, answers, floor, draft.path)
    shutil.rmtree(draft.path / work.REQUESTS)
    draft.figures["budget"] = found.figures()
    draft.figures["failures"] = dict(sorted(failures.items()))
    return account


def budget(settings: Settings, folder: Path) -> Budget:
    """The budget of the requests planned in ``folder``."""
    teacher, answers = ready(settings), Layout(Path(settings.output)).teacher
    requests = (pq.read_table(path, columns=["key", "prompt"]) for path in work.parts(folder / work.REQUESTS))
    return budget_of(requests, store.keys(answers), teacher)


def ready(settings: Settings) -> TeacherSettings:
    """The teacher's settings, once what would stop the run later was looked at.

    Raises ConfigError where there is no teacher, it is not in-house or its key is not there.
    """
    teacher = settings.improvement.teacher
    if TEACHER not in settings.improvement.sources or teacher is None:
        raise ConfigError(
            "no teacher: set improvement.sources=[teacher] and improvement.teacher with base_url and model"
        )
    require_in_house(teacher)
    api_key(teacher)
    return teacher


def merge(account: Account, other: Account) -> None:
    """Add the counts of ``other``."""
    for kind, counts in other.items():
        account[kind].update(counts)


def record(draft: Draft, account: Account, floor: Floor, settings: Settings) -> None:
    """Rows and figures into the manifest; raises DataError where the training split gets no revision."""
    sources = settings.improvement.sources
    draft.figures["floor"] = floor.figures()
    draft.figures["embedder"] = settings.retrieval.embedder.model
    for source, kind in ((COMMUNITY, "candidates"), (TEACHER, "drafts")):
        if source not in sources:
            continue
        record_rows(draft, kind, account[kind])
        count = draft.rows[kind]
        log.info("%s: %d revisions of %d %s at a floor of %g", source, count.kept, count.read, kind, floor.value)
        draft.figures[source] = {split: shares(account[f"{source}:{split}"]) for split in SPLITS}
        draft.figures[source]["similarity"] = binned_quantiles(account[f"similarity:{source}"], QUANTILES)
    if not any(draft.figures[source]["train"]["pairs"] for source in sources):
        counted = "; ".join(f"{kind}: {count.read} read, dropped {count.dropped}" for kind, count in draft.rows.items())
        raise DataError(
            f"no revisions in the training split ({counted}); lower the floor of {floor.value:g} by"
            " improvement.floor_quantile or improvement.floor, loosen the pair rule (pairs), or read more dumps"
        )
    if settings.retrieval.embedder.model == LEXICAL:
        draft.notes.append(LEXICAL_NOTE)


def shares(counts: Counter[str | None]) -> dict[str, Any]:
    """Pairs, and what share of them is of each kind."""
    pairs = counts["pairs"]
    kinds = {str(name): round(n / pairs, 4) for name, n in sorted(counts.items(), key=str) if name != "pairs"}
    return {"pairs": pairs, **kinds}
