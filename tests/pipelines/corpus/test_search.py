"""Lines that name a wanted community are all found, however it is spelled and wherever it stands."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.corpus.decoding import SLACK
from pipelines.corpus.search import Search

NAMES = ["quiet", "de", "mental_health", "community7", "averyverylongname_21c"]


def found(names: list[str], lines: list[bytes], stale: bytes = b"") -> set[int]:
    """Numbers of the lines that a search finds; ``stale`` stands behind the block in the buffer."""
    data = b"".join(line + b"\n" for line in lines)
    buffer = bytearray(data + stale.ljust(SLACK, b"\0"))
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 10)
    return set(Search(names).lines(buffer, len(data), ends).tolist())


@given(
    wanted=st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True),
    lines=st.lists(
        st.tuples(
            st.text('ab{}"\\:,é', max_size=9),
            st.sampled_from([*NAMES, "community71", "quie", "dequiet"]),
            st.sampled_from([str.lower, str.upper, str.title, str.swapcase]),
            st.sampled_from(['"subreddit":"{}"', '"subreddit" : "{}"', '"subreddit":\t"{}"']),
        ),
        max_size=30,
    ),
)
def test_a_line_of_a_wanted_community_is_found_at_any_place_in_any_spelling(wanted, lines) -> None:
    made = [f"{before}{form.format(spell(name))}}}".encode() for before, name, spell, form in lines]
    got = found(wanted, made)
    assert got == {number for number, (_, name, _, _) in enumerate(lines) if name in wanted}


@pytest.mark.parametrize("count", [1, 3, 4])
def test_names_that_begin_alike_are_told_apart(count: int) -> None:
    lines = [b'{"subreddit":"community%d"}' % number for number in range(100)]
    wanted = [7, 23, 42, 99][:count]
    assert found([f"community{number}" for number in wanted], lines) == set(wanted)


def test_what_an_earlier_block_left_in_the_buffer_is_not_found() -> None:
    assert found(["quiet"], [b"{}"], stale=b'"quiet"') == set()
    assert found(["quiet"], [b'{"subreddit":"qui'], stale=b'et"') == set()
