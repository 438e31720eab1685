"""Pseudo-random permutations that are computed, not stored: position i of n in O(1)."""

import numpy as np

_ROUNDS = 6
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(words: np.ndarray) -> np.ndarray:
    """Hash 64-bit words to 64-bit words (the finaliser of SplitMix64, Steele et al. 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def derive_key(*parts: int | np.ndarray) -> np.ndarray:
    """Hash a sequence of integers (or integer arrays, broadcast) to uint64 keys."""
    key = np.uint64(0)
    with np.errstate(over="ignore"):
        for part in parts:
            key = mix(key + _GOLDEN + np.asarray(part).astype(np.uint64))
    return np.asarray(key)


def permute(index: np.ndarray, size: int, key: np.ndarray | int) -> np.ndarray:
    """Map each index in [0, size) to its place under the permutation that `key` names.

    A Feistel network over the next power of two, walked along its cycle until it is back inside
    [0, size) (Black & Rogaway 2002): a bijection for every key, without a table.

    index: int64 [n]; key: uint64, scalar or [n]. Returns int64 [n].
    """
    bits = max((size - 1).bit_length(), 4)  # 4: a few bits more mix tiny ranges properly
    state = np.asarray(index).astype(np.uint64)
    keys = np.broadcast_to(np.asarray(key, dtype=np.uint64), state.shape)
    state = _feistel(state, bits, keys)
    outside = np.flatnonzero(state >= size)
    while outside.size:
        state[outside] = _feistel(state[outside], bits, keys[outside])
        outside = outside[state[outside] >= size]
    return state.astype(np.int64)


def _feistel(state: np.ndarray, bits: int, keys: np.ndarray) -> np.ndarray:
    low_bits = np.uint64(bits // 2)
    high_bits = np.uint64(bits) - low_bits
    low_mask = (np.uint64(1) << low_bits) - np.uint64(1)
    high_mask = (np.uint64(1) << high_bits) - np.uint64(1)
    low, high = state & low_mask, state >> low_bits
    with np.errstate(over="ignore"):
        for round_number in range(_ROUNDS):
            keys = keys + _GOLDEN
            if round_number % 2:
                low = low ^ (mix(high + keys) & low_mask)
            else:
                high = high ^ (mix(low + keys) & high_mask)
    return (high << low_bits) | low
