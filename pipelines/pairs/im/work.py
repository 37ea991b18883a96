"""The Ray shell of the stage ``revisions``: which actor does what to which file.

An actor works through files of threads a slice at a time; each gives one file of every kind
of rows, of its own name, so that a task that Ray runs twice overwrites its own. The
embedder is loaded once an actor and sees only replies that stand in candidates.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import DataError
from configs.retrieval import LEXICAL
from configs.settings import Settings
from pipelines import pools
from pipelines.corpus.failures import plain_errors
from pipelines.corpus.notes import Account, Notes, collect
from pipelines.pairs.exposure_model import Exposure
from pipelines.pairs.im import store
from pipelines.pairs.im.floor import Floor, floor_of
from pipelines.pairs.im.judging import judge
from pipelines.pairs.im.planning import Planner
from pipelines.pairs.im.schema import COMMUNITY, REQUEST, REVISION, TEACHER
from pipelines.pairs.rules import rule_of
from pipelines.retrieval import embed
from pipelines.retrieval.examples import Retrieved, examples_for

REQUESTS = "requests"
"""Folder of what the teacher is asked; there only while the stage runs."""
SLICE = 1000
"""Rows of a file held at once."""


def parts(folder: Path) -> list[str]:
    """The Parquet files of a folder, in the order of their names; raises DataError where there are none."""
    files = sorted(str(path) for path in folder.resolve().glob("*.parquet"))
    if not files:
        raise DataError(f"{folder} holds no *.parquet")
    return files


def gpus(settings: Settings) -> float:
    """GPUs that an actor with the embedder asks of Ray."""
    if settings.retrieval.gpus_per_actor is not None:
        return settings.retrieval.gpus_per_actor
    has_some = pools.gpus(pools.selector(settings, "training")) >= 1
    return 1.0 if has_some and settings.retrieval.embedder.model != LEXICAL else 0.0


def measure_floor(settings: Settings, threads: Path) -> Floor:
    """The content-preservation floor, measured in a task with the embedder."""
    import ray

    share = gpus(settings)

    def measure(files: list[Path]) -> Floor:
        encode = embed.load(settings.retrieval.embedder, gpu=share > 0).encode
        return floor_of(files, settings.improvement, encode)

    task = ray.remote(num_cpus=1, num_gpus=share, label_selector=pools.for_gpus(settings, share))(measure)
    with plain_errors():
        found: Floor = ray.get(task.remote([Path(path) for path in parts(threads)]))
    return found


def plan(settings: Settings, inputs: Mapping[str, Path], floor: float | None, folder: Path) -> Account:
    """Write the community's revisions and the requests to the teacher below ``folder``.

    Without a ``floor`` only the requests, and nothing is embedded.
    """
    folders = [folder / REQUESTS] if TEACHER in settings.improvement.sources else []
    if floor is not None and COMMUNITY in settings.improvement.sources:
        folders.append(folder / COMMUNITY)
    for each in folders:
        each.mkdir(parents=True)
    share = gpus(settings) if floor is not None else 0.0
    given = {name: path.resolve() for name, path in inputs.items()}
    return over(parts(given["threads"]), Planning, (settings, given, floor, share, folder.resolve()), settings, share)


def judge_all(settings: Settings, answers: Path, floor: float, folder: Path) -> Account:
    """Write the teacher's revisions below ``folder``, of the requests there and the store ``answers``."""
    (folder / TEACHER).mkdir()
    share = gpus(settings)
    return over(
        parts(folder / REQUESTS),
        Judging,
        (settings, floor, share, answers.resolve(), folder.resolve()),
        settings,
        share,
    )


def over(
    files: list[str], worker: Callable[..., object], arguments: tuple[object, ...], settings: Settings, share: float
) -> Account:
    """Run ``worker`` over the files in a pool of actors, and add up their notes."""
    import ray.data

    paths = ray.data.from_items([{"path": path} for path in files], override_num_blocks=len(files))
    notes = paths.map_batches(
        worker,
        fn_constructor_args=arguments,
        compute=ray.data.ActorPoolStrategy(size=min(settings.retrieval.actors, len(files))),
        batch_format="pyarrow",
        batch_size=None,
        num_cpus=1,
        num_gpus=share or None,
        label_selector=pools.for_gpus(settings, share),
    )
    with plain_errors():
        return collect(notes)


class Planning:
    """Plans files of threads."""

    def __init__(self, settings: Settings, inputs: Mapping[str, Path], floor: float | None, share: float, folder: Path):
        model = Exposure.read(inputs["exposure"])
        rule = rule_of(settings.pairs, model)
        encode = None if floor is None else embed.load(settings.retrieval.embedder, gpu=share > 0).encode
        self.retrieval = inputs.get("retrieval")
        self.planner = Planner(settings, rule, model, floor or 0.0, encode, self.retrieve)
        self.folder = folder

    def __call__(self, batch: pa.Table) -> pa.Table:
        notes = Notes()
        for path in batch["path"].to_pylist():
            self.plan(Path(path), notes)
        return notes.table()

    def retrieve(self, threads: pa.Table, file: Path) -> list[Retrieved]:
        """The examples for the prompts of some threads of a file."""
        return examples_for(threads, self.retrieval, file)

    def plan(self, path: Path, notes: Notes) -> None:
        """One file of threads to one file of each kind."""
        with ExitStack() as stack:
            revisions, requests = (
                stack.enter_context(pq.ParquetWriter(self.folder / kind / path.name, schema, compression="zstd"))
                if (self.folder / kind).is_dir()
                else None
                for kind, schema in ((COMMUNITY, REVISION), (REQUESTS, REQUEST))
            )
            for threads in slices(path):
                found = self.planner.plan(threads, path, notes)
                if revisions:
                    revisions.write_table(found.revisions)
                if requests:
                    requests.write_table(found.requests)


class Judging:
    """Judges the answers to files of requests."""

    def __init__(self, settings: Settings, floor: float, share: float, answers: Path, folder: Path):
        self.encode = embed.load(settings.retrieval.embedder, gpu=share > 0).encode
        self.answers = {row["key"]: row for row in store.read(answers).to_pylist()}
        self.floor, self.folder = floor, folder

    def __call__(self, batch: pa.Table) -> pa.Table:
        notes = Notes()
        for path in map(Path, batch["path"].to_pylist()):
            with pq.ParquetWriter(self.folder / TEACHER / path.name, REVISION, compression="zstd") as writer:
                for requests in slices(path):
                    writer.write_table(judge(requests, self.answers, self.encode, self.floor, notes))
        return notes.table()


def slices(path: Path) -> Iterator[pa.Table]:
    """The rows of a Parquet file, some at a time."""
    for batch in pq.ParquetFile(path).iter_batches(SLICE):
        yield pa.Table.from_batches([batch])
