"""From candidates to pairs: caps, order, partitions and threads of any size."""

import resource
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.pairs import PairSettings
from pipelines.pairs import replies as replies_module
from pipelines.pairs import select as select_module
from pipelines.pairs.replies import Replies, hashed
from pipelines.pairs.rules import Rule, rules
from pipelines.pairs.select import candidates, capped, select, select_all
from tests.pipelines.pairs.making import THREADS, exposure, ids, of, random_table, row, shuffled, table
from tests.pipelines.pairs.test_rules import MODELS, NAMES, SETTINGS


def one_by_one(replies: Replies, rule: Rule, settings: PairSettings) -> list[tuple[int, int]]:
    """The greedy choice as its description reads: pair by pair, without any of the arithmetic on arrays."""
    value, uses, taken, of_post = rule.value(replies), Counter[int](), list[tuple[int, int]](), defaultdict(list)
    for at, post in enumerate(replies.posts.tolist()):
        of_post[post].append(at)
    for group in of_post.values():
        if replies.post_scores[group[0]] < settings.min_post_score:
            continue
        couples = np.array([(a, b) for a in group for b in group if value[a] > value[b]], dtype=np.int64).reshape(-1, 2)
        couples = couples[rule.allows(replies, couples[:, 0], couples[:, 1])]
        couples = couples[rule.keeps(replies, couples[:, 0], couples[:, 1])]
        clear = np.stack(rule.clarity(replies, couples[:, 0], couples[:, 1]), axis=1).tolist()
        ranked = sorted(
            zip(clear, couples.tolist(), strict=True),
            key=lambda entry: (-entry[0][0], -entry[0][1], *(replies.names[end] for end in entry[1])),
        )
        count = 0
        for _, (a, b) in ranked:
            if count < settings.max_per_post and max(uses[a], uses[b]) < settings.max_per_reply:
                uses.update((a, b))
                taken.append((a, b))
                count += 1
    return taken


@given(THREADS, SETTINGS, MODELS, st.sampled_from(NAMES))
def test_the_clearest_pairs_are_taken_one_by_one_within_the_caps(
    threads: Any, settings: Any, model: Any, name: Any
) -> None:
    replies, rule = of(table(*threads), model), rules(settings, model)[name]
    found = select(replies, rule, settings)
    assert list(zip(found.chosen.tolist(), found.rejected.tolist(), strict=True)) == one_by_one(replies, rule, settings)


@given(THREADS, SETTINGS, MODELS, st.sampled_from(NAMES))
def test_the_caps_hold_and_every_candidate_is_accounted_for(threads: Any, settings: Any, model: Any, name: Any) -> None:
    replies = of(table(*threads), model)
    found = select(replies, rules(settings, model)[name], settings)
    uses = Counter([*found.chosen.tolist(), *found.rejected.tolist()])
    assert max(Counter(found.pairs.posts.tolist()).values(), default=0) <= settings.max_per_post
    assert max(uses.values(), default=0) <= settings.max_per_reply
    assert len({frozenset(p) for p in zip(found.chosen, found.rejected, strict=True)}) == len(found.pairs)
    assert found.candidates.sum() == len(found.pairs) + found.unbalanced.sum() + found.over_cap
    assert found.over_cap >= 0 and len(found.candidates) == replies.rows


@given(THREADS, SETTINGS, MODELS, st.sampled_from(NAMES), st.randoms())
def test_the_choice_depends_neither_on_the_order_of_rows_nor_on_the_partitions(
    threads: Any, settings: Any, model: Any, name: Any, rng: Any
) -> None:
    def pairs(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
        return ids(table(*rows), select(of(table(*rows), model), rules(settings, model)[name], settings))

    whole = sorted(pairs(threads))
    assert sorted(pairs(shuffled(threads, rng))) == whole
    assert sorted(pair for thread in threads for pair in pairs([thread])) == whole


@pytest.mark.parametrize("name", NAMES)
def test_blocks_of_any_size_give_the_same_pairs(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, model, settings = random_table(3, 40, most=30), exposure(), PairSettings(min_gap=1)
    rule = rules(settings, model)[name]
    whole = select(of(threads, model), rule, settings)
    for size in (1, 7, 100):
        monkeypatch.setattr(replies_module, "BLOCK", size)
        monkeypatch.setattr(select_module, "BLOCK", size)
        again = select(of(threads, model), rule, settings)
        assert ids(threads, again) == ids(threads, whole)
        assert again.candidates.tolist() == whole.candidates.tolist()


def test_all_rules_at_once_give_what_each_gives_alone() -> None:
    threads, model, settings = random_table(4, 60), exposure(), PairSettings()
    replies, known = of(threads, model), rules(settings, model)
    for name, found in select_all(replies, known, settings).items():
        assert ids(threads, found) == ids(threads, select(replies, known[name], settings))
        assert len(found.pairs)


def test_candidates_are_all_that_the_caps_choose_from() -> None:
    threads, model, settings = random_table(5, 30), exposure(), PairSettings()
    replies, rule = of(threads, model), rules(settings, model)["naive"]
    found = candidates(replies, rule, settings)
    kept = found.take(capped(found, settings.max_per_post, settings.max_per_reply))
    whole = select(replies, rule, settings)
    assert len(found) == whole.candidates.sum()
    assert kept.chosen.tolist() == whole.chosen.tolist()


def test_the_clearest_pairs_come_first() -> None:
    threads, settings = table(row("p", [(2, 1), (4, 2), (40, 3)])), PairSettings(rule="shp")
    shp = rules(settings, None)["shp"]
    assert ids(threads, select(of(threads), shp, settings)) == [("pc2", "pc0"), ("pc2", "pc1"), ("pc1", "pc0")]
    one = PairSettings(max_per_reply=1)
    assert ids(threads, select(of(threads), shp, one)) == [("pc2", "pc0")]


@pytest.mark.parametrize("threads", [table(), table(row("p", [])), table(row("p", [(5, 1)]), row("q", []))])
def test_threads_without_two_replies_have_no_pairs(threads: Any) -> None:
    for found in select_all(of(threads, exposure()), rules(PairSettings(), exposure()), PairSettings()).values():
        assert len(found.pairs) == 0 and found.candidates.tolist() == [0] * threads.num_rows


@pytest.mark.parametrize(("name", "size"), [("matched", 15_000), ("shp", 6_000)])
def test_a_very_long_thread_passes_in_bounded_memory(name: Any, size: int) -> None:
    rng = np.random.default_rng(0)
    votes = [(int(score), 30 * i) for i, score in enumerate(rng.integers(-5, 500, size))]
    threads, settings, model = table(row("p", votes)), PairSettings(), exposure()
    replies = of(threads, model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = select(replies, rules(settings, model)[name], settings)
    assert len(found.pairs) == settings.max_per_post
    assert found.candidates[0] > (2_000_000 if name == "shp" else 10_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_a_hash_is_the_same_in_any_table_and_on_any_machine() -> None:
    alone, among = hashed(pa.array(["ehk1a2b"])), hashed(pa.array(["x", "ehk1a2b", "a-much-longer-id", "é"]))
    assert alone[0] == among[1] and len(set(among.tolist())) == 4

    def mixed(value: int) -> int:
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
        return value ^ value >> 31

    expected = 0xCBF29CE484222325
    for byte in b"ehk1a2b":
        expected = (expected ^ byte) * 0x100000001B3 % 2**64
    assert int(alone[0]) == mixed(expected)
