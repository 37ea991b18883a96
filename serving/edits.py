"""What a revision changed, word by word.

Words are compared with the white space that follows them left aside, and every character of
both texts is in exactly one edit: joined, the ``draft`` sides are the draft and the ``revision``
sides the revision, so that a page can show the change without either text at hand.

The alignment is the shortest one (Myers 1986, "An O(ND) difference algorithm and its
variations", figure 2) with a bound on D: beyond ``MOST_CHANGES`` changed words the middle is
shown as one replacement, which is what a reader would see there anyway. ``difflib`` is no
choice: on repeated words it takes cubic time, and drafts come from outside.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

MOST_CHANGES = 400
"""Words deleted and inserted up to which the shortest alignment is looked for."""
WORDS = re.compile(r"\s*\S+\s*$|\s*\S+(?:\s+(?=\S))?|\s+")
"""A word with the white space around it: each character of a text is in one of them."""

Op = Literal["equal", "insert", "delete", "replace"]


class Edit(NamedTuple):
    """A stretch of words that stayed, went, came, or took the place of others."""

    op: Op
    draft: str
    revision: str


def edits(draft: str, revision: str) -> list[Edit]:
    """The changes that make ``revision`` of ``draft``, in order, neighbours of one kind joined."""
    old, new = WORDS.findall(draft), WORDS.findall(revision)
    found: list[Edit] = []
    at_old = at_new = 0
    for i, j, length in [*matches([w.strip() for w in old], [w.strip() for w in new]), (len(old), len(new), 0)]:
        gone, came = "".join(old[at_old:i]), "".join(new[at_new:j])
        if gone or came:
            found.append(Edit("replace" if gone and came else "delete" if gone else "insert", gone, came))
        if length:
            found.append(Edit("equal", "".join(old[i : i + length]), "".join(new[j : j + length])))
        at_old, at_new = i + length, j + length
    return found


def matches(old: list[str], new: list[str]) -> Iterator[tuple[int, int, int]]:
    """Stretches ``old[i : i + n] == new[j : j + n]`` as (i, j, n), in order and as long as they go."""
    start = common(old, new)
    end = common(old[start:][::-1], new[start:][::-1])
    if start:
        yield 0, 0, start
    middle_old, middle_new = old[start : len(old) - end], new[start : len(new) - end]
    for i, j, length in shortest(middle_old, middle_new):
        yield start + i, start + j, length
    if end:
        yield len(old) - end, len(new) - end, end


def common(old: list[str], new: list[str]) -> int:
    """Words that both begin with."""
    length = 0
    for a, b in zip(old, new, strict=False):
        if a != b:
            break
        length += 1
    return length


def shortest(old: list[str], new: list[str]) -> list[tuple[int, int, int]]:
    """Stretches that both have, by Myers' greedy search; none where more than MOST_CHANGES words differ."""
    if not old or not new:
        return []
    reach = {1: 0}
    trace: list[dict[int, int]] = []
    for changes in range(min(len(old) + len(new), MOST_CHANGES) + 1):
        trace.append({k: reach[k] for k in range(1 - changes, changes, 2)} if changes else dict(reach))
        for k in range(-changes, changes + 1, 2):
            down = k == -changes or (k != changes and reach[k - 1] < reach[k + 1])
            x = reach[k + 1] if down else reach[k - 1] + 1
            while x < len(old) and x - k < len(new) and old[x] == new[x - k]:
                x += 1
            reach[k] = x
            if x >= len(old) and x - k >= len(new):
                return stretches(trace, len(old), len(new))
    return []


def stretches(trace: list[dict[int, int]], x: int, y: int) -> list[tuple[int, int, int]]:
    """The way back from (x, y) through the search, as stretches from the beginning."""
    found = []
    for changes in range(len(trace) - 1, -1, -1):
        reach, k = trace[changes], x - y
        if changes == 0:
            before_x, before_y = 0, 0
        else:
            down = k == -changes or (k != changes and reach[k - 1] < reach[k + 1])
            before_k = k + 1 if down else k - 1
            start_x = reach[before_k]
            before_x, before_y = (start_x, start_x - k) if down else (start_x + 1, start_x + 1 - k)
        if x > before_x:
            found.append((before_x, before_y, x - before_x))
        if changes:
            x, y = start_x, start_x - before_k
    return found[::-1]
