"""``llumi forget``: rows out of every output, as one change, with manifests that stay true and current.

**What happens to what.** Threads, SFT rows, pairs, rated pairs, revisions, rating files,
the teacher's answers and quarantined lines lose their rows (by id, see ``match``); the
retrieval index loses its entries. Tokenised rows that hold a removed row go as a whole
folder: token ids decode to the text, and making them again takes minutes where training
takes hours. So does an evaluation with removed posts among its test posts, since its page
shows them. Weights stay, are marked in their manifests and listed. Numbers (exposure,
curves) stay. Dumps are never touched, nor any file outside of the output.

**Why manifests are rewritten.** A stage is current where its manifest has the key of its
stage, settings and inputs, and an input's fingerprint is that of its manifest. Taking rows
out changes manifests from the threads on; left at that, the next run would make everything
again, and pairs made anew are other pairs: caps let other replies in, the exposure model is
fitted again. So each output that lost rows, or was made from one, gets the fingerprints of
what its inputs have become, and a new key: "this is what these settings made of these
inputs, less what was forgotten", which is what is true. This stops at training: tokens are
gone or weights are marked, so their successors keep the old fingerprints, do not match any
more, and ``llumi run`` trains them again. A model that no removed row reached stays current.

**Why threads name the list.** The list's digest is among the settings that threads depend
on. An output to which a list was copied is then not current, and threads from dumps under
the list have the very key, and the very rows, of threads that were forgotten in place.

**What cannot be followed is removed.** Rows lead back to an account only through the
threads they were made of. An output made of other threads than those that are there is not
current anyway, so it is removed rather than half searched.

Everything is prepared beside and then moved at once (see ``staging``).
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from configs.errors import DataError, StageOrderError
from configs.settings import Settings
from pipelines.corpus.authors import author_key, given_key, key_check
from pipelines.forgetting import kept as kept_list
from pipelines.forgetting.kept import Forgotten
from pipelines.forgetting.lineage import Output, outputs
from pipelines.forgetting.report import Change, Report
from pipelines.forgetting.requests import Requests
from pipelines.forgetting.scope import resolve
from pipelines.forgetting.staging import Staging
from pipelines.forgetting.work import ROWS, Forgetting
from pipelines.layout import Layout

log = logging.getLogger("llumi.forget")


class Elsewhere(NamedTuple):
    """What was found in a store that lies outside of the outputs."""

    changes: list[Change]
    found: frozenset[str]
    """Requests, as they stand in the file, of which it held something."""


def forget(
    settings: Settings,
    requests: Requests,
    *,
    ratings: Sequence[Path] = (),
    config: str = "CONFIG",
    dry_run: bool = False,
    elsewhere: Callable[[Requests, Forgotten], Elsewhere] | None = None,
) -> Report:
    """Take what was requested out of everything below ``settings.output``, and keep it out of later builds.

    ``ratings`` are the rating files that the configuration names, in the order in which the
    feedback stage reads them. ``elsewhere`` is told what goes once everything here is prepared
    and before it is done, so that nothing is done here where it fails. The caller holds the
    output's lock. With ``dry_run`` all is prepared, counted and thrown away. Raises
    StageOrderError where rows are there and not the threads they were made of, DataError where
    the list's key or the threads' is not at hand.
    """
    root, named = Path(settings.output), settings.corpus.scrub.author_key
    staging = Staging(root)
    try:
        before = kept_list.load(root, named)
        asked = kept_list.asked(requests, key_for(root, named, dry_run))
        found = outputs(root)
        threads = next((output for output in found if output.stage == "corpus"), None)
        check(found, threads, asked.key)
        scope = resolve(threads.path if threads else Layout(root).threads, asked)
        keep_out = scope.keep_out.union(before)
        work = Forgetting(settings, staging, scope, keep_out, list(ratings), config)
        work.every(found, threads)
        told = Elsewhere([], frozenset()) if elsewhere is None else elsewhere(requests, scope.gone.union(keep_out))
        if not dry_run:
            staging.commit()
            log.info("forgot %d requests in %d outputs", len(requests), len(work.lost))
    finally:
        staging.close()
    return Report(
        dry_run=dry_run,
        when=work.when,
        asked={"posts": len(requests.posts), "comments": len(requests.comments), "authors": len(requests.authors)},
        kept_out=sum(len(getattr(keep_out, kind)) for kind in ("posts", "comments", "authors")),
        unknown=[name for name in scope.unknown(requests, before) if name not in told.found],
        changes=[*work.changes, *told.changes],
        models=work.models,
        outside=work.outside,
    )


def key_for(root: Path, named: str | None, dry_run: bool) -> bytes:
    """The authors' key; a dry run makes none, since without one nothing was ever made here."""
    return (given_key(root, named) or b"no key yet") if dry_run else author_key(root, named)


def check(found: Sequence[Output], threads: Output | None, key: bytes) -> None:
    """Raises where rows cannot be led back to who wrote them."""
    made_here = threads.made.figures.get("author_key") if threads else None
    if made_here is not None and made_here != key_check(key):
        raise DataError(
            f"{threads.path if threads else ''}: its authors are hashes by another key than the one at hand, so no"
            " account can be found; restore the key that was used, or remove the threads and run `llumi corpus CONFIG`"
        )
    rows = [output for output in found if output.stage in ROWS]
    if rows and threads is None:
        raise StageOrderError(
            f"{rows[0].path} was made of threads that are not there, so what belongs to a post or an account cannot be"
            " found: run `llumi corpus CONFIG` first, or remove the folder"
        )
