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
    key = np.asarray(np.uint64(0))
    with np.errstate(over="ignore"):
        for part in parts:
            key = np.asarray(mix(key + _GOLDEN + np.asarray(part).astype(np.uint64)))
    return key


def permute(index: np.ndarray, size: np.ndarray | int, key: np.ndarray | int) -> np.ndarray:
    """Map each index in [0, size) to its place under the permutation that `key` names.

    A Feistel network over the next power of two, walked along its cycle until it is back inside
    [0, size) (Black & Rogaway 2002): a bijection for every key, without a table.

    index: int64 [n]; size: up to 2^53, and key: uint64, each scalar or [n]. Returns int64 [n].
    """
    state = np.asarray(index).astype(np.uint64)
    sizes = np.broadcast_to(np.asarray(size, dtype=np.uint64), state.shape)
    keys = np.broadcast_to(np.asarray(key, dtype=np.uint64), state.shape)
    bits = np.frexp((sizes - np.uint64(1)).astype(np.float64))[1]  # of the largest index
    bits = np.maximum(bits, 4).astype(np.uint64)  # a few bits more mix tiny ranges properly
    state = _feistel(state, bits, keys)
    outside = np.flatnonzero(state >= sizes)
    while outside.size:
        state[outside] = _feistel(state[outside], bits[outside], keys[outside])
        outside = outside[state[outside] >= sizes[outside]]
    return state.astype(np.int64)


def _feistel(state: np.ndarray, bits: np.ndarray, keys: np.ndarray) -> np.ndarray:
    low_bits = bits >> np.uint64(1)
    low_mask = (np.uint64(1) << low_bits) - np.uint64(1)
    high_mask = (np.uint64(1) << (bits - low_bits)) - np.uint64(1)
    low, high = state & low_mask, state >> low_bits
    with np.errstate(over="ignore"):
        for round_number in range(_ROUNDS):
            keys = keys + _GOLDEN
            if round_number % 2:
                low = low ^ (mix(high + keys) & low_mask)
            else:
                high = high ^ (mix(low + keys) & high_mask)
    return (high << low_bits) | low
