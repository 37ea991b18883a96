"""MinHash signatures of texts: what tells from few bytes how much two texts have in common.

rensa signs (Rust; Dahlgaard et al. 2017, Fast Similarity Sketching, in place of one hash a
slot), polars splits and hashes the words, numpy does the rest for all texts at once. The
words' hashes come from the pinned polars and are equal on every machine of one version.
"""

from itertools import chain

import numpy as np
import polars as pl
import rensa

SLOTS, BAND_SLOTS, SLOT_BITS = 128, 4, 2
"""Slots of a signature, slots a band, bits of each slot kept for comparing (b-bit MinHash, Li & König 2010)."""
SHINGLE = 2
"""Words a shingle: sets of single words are alike for any two texts on one subject."""
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SIGNED_AT_ONCE = 500
_SEED = 20_260
_EQUAL_SLOTS = np.array([sum((byte >> shift) & 3 == 0 for shift in (0, 2, 4, 6)) for byte in range(256)], np.uint8)
"""For each byte, how many of its four pairs of bits are zero."""


def sign(words: pl.Series) -> np.ndarray:
    """MinHash signatures (uint32, n x SLOTS) of lists of words, over shingles of SHINGLE words."""
    sizes = words.list.len().to_numpy().astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    tokens = words.explode(empty_as_null=False).hash(3).to_numpy()
    shingles, step = tokens.copy(), tokens
    for _ in range(SHINGLE - 1):
        step = step[1:]
        shingles[: len(step)] = mix(shingles[: len(step)]) + step
    alone = np.repeat(sizes < SHINGLE, sizes)
    shingles[alone] = tokens[alone]
    slots = np.empty((len(sizes), SLOTS), np.uint32)
    inside = np.maximum(sizes - SHINGLE + 1, np.minimum(sizes, 1))
    keep = np.arange(len(shingles)) - np.repeat(offsets[:-1], sizes) < np.repeat(inside, sizes)
    shingles, ends = shingles[keep], np.concatenate([[0], np.cumsum(inside)])
    for start in range(0, len(sizes), _SIGNED_AT_ONCE):  # rensa hands out lists: few at a time stay in the cache
        stop = min(start + _SIGNED_AT_ONCE, len(sizes))
        part, bounds = shingles[ends[start] : ends[stop]], (ends[start : stop + 1] - ends[start]).astype(np.uint64)
        digests = rensa.RMinHash.digest_matrix_from_flat_token_hashes(part, bounds, SLOTS, _SEED).to_rows()
        values = np.fromiter(chain.from_iterable(digests), np.uint32, (stop - start) * SLOTS)
        slots[start:stop] = values.reshape(-1, SLOTS)
    return slots


def band_keys(slots: np.ndarray, bands: int) -> np.ndarray:
    """Keys (uint64, n x bands): equal where all slots of a band are; each band has its own salt."""
    used = slots[:, : bands * BAND_SLOTS].reshape(-1, bands, BAND_SLOTS).astype(np.uint64)
    key = np.broadcast_to(np.arange(1, bands + 1, dtype=np.uint64) * GOLDEN, used.shape[:2]).copy()
    for slot in range(BAND_SLOTS):
        key = mix(key ^ used[:, :, slot])
    return key


def compact(slots: np.ndarray) -> np.ndarray:
    """SLOT_BITS bits of each slot, packed (uint8, n x SLOTS * SLOT_BITS / 8)."""
    bits = (slots * np.uint32(0x9E3779B1)) >> np.uint32(32 - SLOT_BITS)
    quads = bits.astype(np.uint8).reshape(len(slots), slots.shape[1] // 4, 4)
    return quads[:, :, 0] | quads[:, :, 1] << 2 | quads[:, :, 2] << 4 | quads[:, :, 3] << 6


def similarity(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Estimated Jaccard similarity (n,) of compact signatures (n x bytes), standard error .05 at .7.

    Slots that differ still share their bits in 1 of 2^b cases, which is taken off
    (Li & König 2010, eq. 5, for sets small against the universe).
    """
    share = _EQUAL_SLOTS[one ^ other].sum(axis=1) / SLOTS
    return (share - 2.0**-SLOT_BITS) / (1 - 2.0**-SLOT_BITS)


def mix(values: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea & Flood 2014), so that sums of hashes are hashes again."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
