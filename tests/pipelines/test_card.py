"""Data cards: what they say is what the manifest says, and nobody's words or name get into one."""

import re
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from configs import Settings
from configs.card import CardSettings
from pipelines.card import card, card_of, size
from pipelines.manifest import CARD, Manifest, RowCount, read, writing

SECRET = "I told nobody but you"


def manifest(stage: str = "pairs", **changes: Any) -> Manifest:
    about = {
        "stage": stage,
        "version": "1.2.3",
        "code": "ab" * 32,
        "created": "2026-11-23T08:00:00+00:00",
        "seconds": 1.0,
        "settings": {"rule": "matched"},
        "inputs": {},
        "key": "k" * 64,
        "rows": {"gm": RowCount(read=12_000, kept=9_000, dropped={"over_cap": 2_995, "forgotten": 5})},
    }
    return Manifest.model_validate(about | changes)


THREADS = manifest(
    "corpus",
    key="t" * 64,
    settings={"cleaning": {"drop_not_english": True}},
    figures={
        "subreddits": {"Quiet|Room": {"posts": 7, "comments": 1234}},
        "dates": {"first_post": "2019-03-01", "last_post": "2020-01-31"},
        "scrub": {"EMAIL": {"labelled": 15, "found": 14, "recall": 0.9333}},
    },
)


def render(made: Manifest, about: CardSettings | None = None, *, simulated: bool = False) -> str:
    return card(made, THREADS, about or CardSettings(), simulated=simulated)


def front(text: str) -> dict[str, Any]:
    """Hugging Face's block."""
    found = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def test_every_row_count_and_reason_of_the_manifest_is_in_the_card() -> None:
    text = render(manifest())
    assert "| gm | 12,000 | 9,000 | 3,000 |" in text
    assert "| gm | over cap | 2,995 |" in text and "| gm | forgotten | 5 |" in text
    assert "(5 of all kinds here)" in text
    assert "k" * 64 in text and "t" * 64 in text


def test_communities_days_languages_and_recall_come_from_the_threads() -> None:
    text = render(manifest())
    assert r"| Quiet\|Room | 7 | 1,234 |" in text
    assert "Posts from 2019-03-01 to 2020-01-31 (UTC)" in text
    assert "Language: English" in text
    assert "| EMAIL | 15 | 14 | 0.9333 |" in text
    bare = card(manifest(), None, CardSettings(), simulated=False)
    assert "Communities" not in bare and "Language: not filtered" in bare


def test_the_first_block_is_what_hugging_face_reads() -> None:
    files = {
        f"{model}/{split}/part-0.parquet": 1 for model in ("gm", "im") for split in ("train", "validation", "test")
    }
    found = front(render(manifest(files=files)))
    assert found["size_categories"] == ["1K<n<10K"]
    assert (found["license"], found["license_name"]) == ("other", "not to be passed on; the terms of the source apply")
    assert [config["config_name"] for config in found["configs"]] == ["gm", "im"]
    assert found["configs"][0]["data_files"][0] == {"split": "train", "path": "gm/train/*.parquet"}
    assert front(render(manifest(), CardSettings(licence="CC-BY-4.0")))["license_name"] == "CC-BY-4.0"
    assert front(render(manifest(), simulated=True))["license"] == "apache-2.0"
    assert [size(n) for n in (999, 1000, 10**7)] == ["n<1K", "1K<n<10K", "n>10M"]


def test_source_licence_and_contact_are_the_configurations_and_missing_ones_are_said_to_be() -> None:
    about = CardSettings(source="An archive, taken 2026-01", licence="CC-BY-4.0", contact="forget@example.org")
    text = render(manifest(), about)
    assert all(value in text for value in (about.source, about.licence, about.contact))
    bare = render(manifest())
    assert all(f"`card.{name}`" in bare for name in ("source", "licence", "contact"))
    assert "Reddit's [Data API Terms]" in bare and "Reddit" not in render(manifest(), simulated=True).split("## ")[1]


def test_keys_and_paths_of_this_machine_are_not_published() -> None:
    settings = {
        "scrub": {"author_key": "/secret/key"},
        "author_key": "c0ffee",
        "forgotten": "d1gest",
        "model": "/data/me/model",
    }
    text = render(manifest(settings=settings))
    assert not [word for word in ("secret", "c0ffee", "d1gest", "/data/me") if word in text]
    assert "model: model" in text


figures = st.recursive(
    st.one_of(st.integers(-(10**9), 10**9), st.floats(allow_nan=False), st.booleans(), st.none(), st.just(SECRET)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b_c", "d|e"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["gm", "rules", "subreddits", "scrub", "dates", "other"]), figures, max_size=5))
def test_no_text_among_the_figures_reaches_the_card_and_its_tables_are_whole(found: dict[str, Any]) -> None:
    for made in (manifest(figures=found), manifest("corpus", figures=found)):
        corpus = made if made.stage == "corpus" else manifest("corpus", figures=found)
        text = card(made, corpus, CardSettings(), simulated=False)
        assert SECRET not in text
        for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
            assert len(widths) == 1, table


def test_figures_are_in_the_card_as_tables_of_numbers() -> None:
    rules = {
        name: {"pairs": n, "chosen_earlier": share}
        for name, n, share in (("matched", 1500, 0.5), ("naive", 9000, 0.77))
    }
    text = render(manifest(figures={"rules": rules, "threads": 12, "usable": True}))
    assert "| | pairs | chosen earlier |" in text
    assert "| matched | 1,500 | 0.5 |" in text and "| naive | 9,000 | 0.77 |" in text
    assert "| threads | 12 |" in text and "| usable | yes |" in text


def test_a_stage_writes_its_card_before_the_manifest_which_names_it(tmp_path: Path) -> None:
    settings = Settings(output=str(tmp_path))
    with writing(tmp_path / "out", stage="pairs", settings={}, inputs={}, card=card_of(settings)) as draft:
        draft.count("gm", read=3, kept=2, dropped={"over_cap": 1})
    text = (tmp_path / "out" / CARD).read_text(encoding="utf-8")
    made = read(tmp_path / "out")
    assert made is not None and made.key in text and "| gm | 3 | 2 | 1 |" in text
    assert made.files[CARD] == len(text.encode())
