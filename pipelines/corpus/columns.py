"""Parsed lines as a table of RECORD, a column at a time.

``fields`` says what each value becomes; here whole columns go through Arrow at once where
every value has the usual type and needs no change, which is three times as fast. A column
with another type in it, and a text with something to change, is done by ``fields`` value
by value: the outcome is the same, and a test holds that.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.corpus import fields
from pipelines.corpus.schema import COMMENT, POST, RECORD

Indices = npt.NDArray[np.intp]
OTHER_TYPE = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, UnicodeEncodeError, OverflowError)
NEEDED = {"id": "id", "post_id": "link_id", "subreddit": "subreddit", "created_utc": "created_utc"}
"""Columns without which a row is incomplete, and their fields."""
_BOTH = (
    *("id", "subreddit", "author", "created_utc", "score", "ups", "distinguished", "stickied", "edited", "_meta"),
    *("title", "body", "link_id"),
)
READ = {
    POST: (
        *_BOTH,
        *("selftext", "removed_by_category", "over_18", "is_self", "crosspost_parent", "crosspost_parent_list"),
        "contest_mode",
    ),
    COMMENT: (*_BOTH, "parent_id", "score_hidden"),
}
"""Fields of the dumps that are looked at, by kind; each kind is told from the other by title, body and link_id."""
_CONVERTED = tuple(name for name in RECORD.names if name not in {"dropped", "count"})


def convert(kind: str, given: Mapping[str, Sequence[Any]]) -> tuple[pa.Table, dict[int, str]]:
    """Rows of RECORD for the complete records, and by place those that lack a field, with its name.

    ``given`` has the values of each field of ``READ``, null where a record has none.
    """
    is_post = kind == POST
    count = len(given["id"])
    title = texts(given["title"]) if is_post else None
    text = texts(given["selftext" if is_post else "body"])
    ids = identifiers(given["id"])
    score = given["score"]
    if None in score:
        score = [ups if value is None else value for value, ups in zip(score, given["ups"], strict=True)]
    columns = {
        "kind": pa.repeat(pa.scalar(kind), count),
        "id": ids,
        "post_id": ids if is_post else identifiers(given["link_id"]),
        "subreddit": strings(given["subreddit"], fields.name_of, _never),
        "author": strings(given["author"], fields.author, _rough_edges),
        "created_utc": times(given["created_utc"]),
        "score": integers(score),
        "distinguished": truths(given["distinguished"]),
        "stickied": booleans(given["stickied"]),
        "edited": booleans(given["edited"]),
        "settled": pa.array(map(fields.settled, given["_meta"]), pa.bool_()),
        "count": pa.repeat(pa.scalar(1), count),
    }
    missing = _without(columns | ({"title": title} if is_post else {"body": text}), is_post)
    if is_post:
        text = pc.fill_null(text, "")
        gone = _gone(text)
        crosspost = pc.or_(truths(given["crosspost_parent"]), truths(given["crosspost_parent_list"]))
        columns |= {
            "title": title,
            "text": pc.if_else(gone, "", text),
            "removed": pc.or_(gone, truths(given["removed_by_category"])),
            "over_18": booleans(given["over_18"]),
            "is_self": booleans(given["is_self"]),
            "crosspost": crosspost,
            "contest_mode": booleans(given["contest_mode"]),
        }
    else:
        columns |= {
            "parent_id": strings(given["parent_id"], fields.name_of, _never),
            "text": text,
            "removed": _gone(text),
            "score_hidden": booleans(given["score_hidden"]),
        }
    table = _table(columns, count)
    if missing:
        table = table.take(pa.array([place for place in range(count) if place not in missing], pa.int64()))
    return table, missing


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows converted by ``fields`` as a table of RECORD, each alive and standing for itself."""
    columns: dict[str, Any] = dict(zip(_CONVERTED, zip(*map(itemgetter(*_CONVERTED), rows), strict=True), strict=False))
    return _table(columns | {"count": pa.repeat(pa.scalar(1), len(rows))}, len(rows))


def tallies_of(tallies: list[dict[str, Any]]) -> pa.Table:
    """Tallies as a table of RECORD."""
    return pa.Table.from_pylist(tallies, schema=RECORD)


def integers(values: Sequence[Any]) -> pa.Array:
    """As ``fields.integer`` of each."""
    return _alike(values, pa.int64(), fields.integer)


def booleans(values: Sequence[Any]) -> pa.Array:
    """As ``fields.boolean`` of each."""
    return _alike(values, pa.bool_(), fields.boolean)


def truths(values: Sequence[Any]) -> pa.Array:
    """As ``bool`` of each."""
    return pa.array(map(bool, values), pa.bool_())


def times(values: Sequence[Any]) -> pa.Array:
    """As ``fields.seconds`` of each."""
    numbers = integers(values)
    bounds = pc.min_max(numbers)
    low, high = bounds["min"].as_py(), bounds["max"].as_py()
    if low is None or (low >= fields.EARLIEST and high < fields.LATEST):
        return numbers
    return pa.array(map(fields.seconds, values), pa.int64())


def identifiers(values: Sequence[Any]) -> pa.Array:
    """As ``fields.bare`` of each."""
    array = strings(values, fields.bare, _rough_edges)
    offsets, data = _bytes(array)
    if len(data) and data.max() >= 128:
        return pa.array(map(fields.bare, values), pa.string())
    begins = offsets[:-1][np.diff(offsets) > 2]
    prefixed = (data[begins] == ord("t")) & (data[begins + 2] == ord("_"))
    if not prefixed.any():
        return array
    if prefixed.sum() == len(array) and np.diff(offsets).min() > 3:
        return pc.utf8_slice_codeunits(array, 3)
    return pa.array(map(fields.bare, values), pa.string())


def texts(values: Sequence[Any]) -> pa.Array:
    """As ``fields.text`` of each, null where there is none."""
    return strings(values, lambda value: None if value is None else fields.text(value), _to_clean)


def strings(values: Sequence[Any], one: Callable[[Any], str | None], odd: Callable[[pa.Array], Indices]) -> pa.Array:
    """``one`` of each value, called only for those which ``odd`` finds in the column."""
    try:
        array = pa.array(values, pa.string())
    except OTHER_TYPE:
        return pa.array(map(one, values), pa.string())
    places = odd(array)
    if not len(places):
        return array
    mask = np.zeros(len(array), bool)
    mask[places] = True
    return pc.replace_with_mask(array, mask, pa.array([one(values[place]) for place in places], pa.string()))


def _alike(values: Sequence[Any], kind: pa.DataType, one: Callable[[Any], Any]) -> pa.Array:
    try:
        return pa.array(values, kind)
    except OTHER_TYPE:
        return pa.array(map(one, values), kind)


def _bytes(array: pa.Array) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Where each string begins, and the bytes of all."""
    buffers = array.buffers()
    offsets = np.frombuffer(buffers[1], np.int32, len(array) + 1, 4 * array.offset)
    data = np.frombuffer(buffers[2], np.uint8, offsets[-1]) if buffers[2] else np.empty(0, np.uint8)
    return offsets, data


def _never(array: pa.Array) -> Indices:
    return np.empty(0, np.intp)


def _rough_edges(array: pa.Array) -> Indices:
    """Strings that are empty, begin with a bracket, or begin or end with white space or no ASCII."""
    offsets, data = _bytes(array)
    begins, ends = offsets[:-1], offsets[1:]
    empty = begins == ends
    if not len(data):
        return np.flatnonzero(empty & array.is_valid().to_numpy(False))
    first, last = data[np.minimum(begins, len(data) - 1)], data[ends - 1]
    rough = (first <= 32) | (first >= 128) | (first == ord("[")) | (last <= 32) | (last >= 128)
    return np.flatnonzero((rough | empty) & array.is_valid().to_numpy(False))


def _to_clean(array: pa.Array) -> Indices:
    """Texts with entities, invisible characters or rough edges; some others too."""
    offsets, data = _bytes(array)
    odd = data < 32
    odd &= (data != 9) & (data != 10)
    for byte in (ord("&"), 127, 0xC2, 0xEF):
        odd |= data == byte
    quotes = np.flatnonzero(data == 0xE2)
    second, third = data[quotes + 1], data[quotes + 2]
    unseen = (second == 0x80) & (np.isin(third, (0x8B, 0x8E, 0x8F)) | ((third >= 0xA8) & (third <= 0xAE)))
    odd[quotes[unseen | ((second == 0x81) & (third == 0xA0))]] = True
    inside = np.searchsorted(offsets, np.flatnonzero(odd), side="right") - 1
    return np.union1d(inside, _rough_edges(array))


def _gone(array: pa.Array) -> pa.Array:
    """As ``fields.is_gone`` of each."""
    offsets, data = _bytes(array)
    gone = np.zeros(len(array), bool)
    filled = np.flatnonzero(np.diff(offsets))
    for place in filled[data[offsets[filled]] == ord("[")]:
        gone[place] = fields.is_gone(array[int(place)].as_py())
    return pa.array(gone)


def _without(columns: dict[str, pa.Array], is_post: bool) -> dict[int, str]:
    """Places of the rows without a needed value, with the field's name."""
    needed = NEEDED | ({"title": "title", "post_id": "id"} if is_post else {"body": "body"})
    missing: dict[int, str] = {}
    for column, name in needed.items():
        if columns[column].null_count:
            missing |= dict.fromkeys(np.flatnonzero(columns[column].is_null().to_numpy(False)).tolist(), name)
    return missing


def _table(columns: dict[str, Any], count: int) -> pa.Table:
    nothing: Iterable[pa.Field] = (field for field in RECORD if field.name not in columns)
    columns = columns | {field.name: pa.nulls(count, field.type) for field in nothing}
    return pa.table({name: columns[name] for name in RECORD.names}, schema=RECORD)
