"""Language rates, and the Schedule that turns a global row index into (task, epoch, row)."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from xlmjax.data.permutation import derive_key, permute

BLOCK = 65_536  # rows over which the proportions of a mixture are exact


def alpha_rates(sizes: ArrayLike, alpha: float) -> np.ndarray:
    """Return q_i ~ p_i^alpha (Lample & Conneau 2019, equation 1): 1 follows the corpus, 0 is flat.

    sizes: [n], any unit. Returns float64 [n], summing to 1.
    """
    if alpha < 0:
        raise ValueError(f"data.mixing.alpha={alpha} must be 0 or more")
    shares = np.asarray(sizes, dtype=np.float64)
    weights = (shares / shares.sum()) ** alpha
    return weights / weights.sum()


def temperature_rates(sizes: ArrayLike, temperature: float) -> np.ndarray:
    """Return q_i ~ p_i^(1/temperature) (Arivazhagan et al. 2019), summing to 1."""
    if temperature <= 0:
        raise ValueError(f"data.mixing.temperature={temperature} must be above 0")
    return alpha_rates(sizes, 1.0 / temperature)


def unimax_rates(sizes: ArrayLike, budget: float, max_epochs: float) -> np.ndarray:
    """Return the flattest rates that repeat nothing more than `max_epochs` times.

    UniMax (Chung et al. 2023, algorithm 1): from the smallest corpus on, each takes an equal share
    of what is left of the budget, or `max_epochs` of itself if that is less. Where the budget
    exceeds `max_epochs` of everything, all are repeated alike.

    sizes: [n], in the unit of `budget` (rows). Returns float64 [n], summing to 1.
    """
    if max_epochs <= 0:
        raise ValueError(f"data.mixing.max_epochs={max_epochs} must be above 0")
    wanted = max_epochs * np.asarray(sizes, dtype=np.float64)
    granted = np.zeros_like(wanted)
    left = float(budget)
    for rank, task in enumerate(np.argsort(wanted, kind="stable")):
        granted[task] = min(left / (len(wanted) - rank), wanted[task])
        left -= granted[task]
    return granted / granted.sum()


def quotas(rates: ArrayLike, block: int = BLOCK) -> np.ndarray:
    """Round rates to integers that sum to `block`: largest remainders, one row a task at least.

    rates: [n]; a rate of exactly 0 rests and gets no row. Returns int64 [n].
    """
    shares = np.asarray(rates, dtype=np.float64)
    if (shares < 0).any() or not np.isfinite(shares).all() or not shares.any():
        raise ValueError(f"rates must be finite, 0 or more and not all 0, found {shares.tolist()}")
    if not shares.all():
        counts = np.zeros(len(shares), dtype=np.int64)
        counts[shares > 0] = quotas(shares[shares > 0], block)
        return counts
    if len(shares) > block:
        raise ValueError(f"{len(shares)} tasks do not fit a block of {block} rows")
    exact = np.maximum(shares / shares.sum() * block, 1.0)
    # Tasks held at one row take from the others in proportion.
    free = exact > 1.0
    exact[free] *= (block - np.count_nonzero(~free)) / exact[free].sum()
    whole = np.maximum(np.floor(exact), 1.0).astype(np.int64)
    order = np.argsort(whole - exact, kind="stable")  # largest remainder first
    missing = block - int(whole.sum())
    if missing >= 0:
        whole[order[:missing]] += 1
    else:
        for task in np.argsort(-whole, kind="stable")[:-missing]:
            whole[task] -= 1
    return whole


@dataclasses.dataclass(frozen=True)
class Stage:
    """From global row `first_row` (a multiple of the block) on, each block holds these quotas."""

    first_row: int
    quotas: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Located:
    """Where global rows come from: arrays [n] of task index, epoch and row within the task."""

    tasks: np.ndarray
    epochs: np.ndarray
    rows: np.ndarray


class Schedule:
    """The order of the data as arithmetic: any global row in O(1), no iterator to save.

    Every block of a stage holds exactly its quotas, in a pseudo-random order; every epoch of a task
    visits each of its rows once, in a fresh order; counters carry over from stage to stage.
    """

    def __init__(
        self, sizes: Sequence[int], stages: Sequence[Stage], seed: int, block: int = BLOCK
    ):
        """Sizes are rows an epoch of each task [n]; the first stage starts at row 0."""
        for task, size in enumerate(sizes):
            if size <= 0:
                raise ValueError(f"task {task} of the schedule has no rows")
        if not stages or stages[0].first_row != 0:
            raise ValueError("the first stage of a schedule must start at row 0")
        for before, after in itertools.pairwise(stages):
            if after.first_row <= before.first_row or after.first_row % block:
                raise ValueError(
                    f"stage starting at row {after.first_row} must come after {before.first_row} "
                    f"and start at a multiple of the block of {block} rows"
                )
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.seed = seed
        self.block = block
        self._first_blocks = np.array([stage.first_row // block for stage in stages])
        self._quotas = np.array([stage.quotas for stage in stages], dtype=np.int64)
        if (self._quotas.sum(axis=1) != block).any():
            raise ValueError(f"the quotas of every stage must sum to the block of {block} rows")
        self._ends = np.cumsum(self._quotas, axis=1)
        spans = np.diff(self._first_blocks)[:, None] * self._quotas[:-1]
        self._consumed = np.concatenate([np.zeros_like(self._quotas[:1]), np.cumsum(spans, axis=0)])

    @property
    def first_rows(self) -> np.ndarray:
        """Global row at which each stage begins, int64 [stages]."""
        return self._first_blocks.astype(np.int64) * self.block

    def locate(self, global_rows: np.ndarray) -> Located:
        """Return task, epoch and row of each global row; int64 [n] in and out."""
        global_rows = np.asarray(global_rows, dtype=np.int64)
        blocks, places = np.divmod(global_rows, self.block)
        slots = permute(places, self.block, derive_key(self.seed, 1, blocks))
        stages = np.searchsorted(self._first_blocks, blocks, side="right") - 1
        tasks = np.empty_like(global_rows)
        counters = np.empty_like(global_rows)
        for stage in np.unique(stages):
            of_stage = stages == stage
            slot = slots[of_stage]
            task = np.searchsorted(self._ends[stage], slot, side="right")
            quota = self._quotas[stage, task]
            start = self._ends[stage, task] - quota
            whole_blocks = blocks[of_stage] - self._first_blocks[stage]
            tasks[of_stage] = task
            counters[of_stage] = self._consumed[stage, task] + whole_blocks * quota + slot - start
        epochs, positions = np.divmod(counters, self.sizes[tasks])
        keys = derive_key(self.seed, 2, tasks, epochs)
        rows = permute(positions, self.sizes[tasks], keys)
        return Located(tasks, epochs, rows)

    def rows_until(self, global_row: int) -> np.ndarray:
        """Return how many rows of each task the first `global_row` rows hold, int64 [tasks].

        Exact at block boundaries, in proportion within the last block.
        """
        last = int(np.searchsorted(self._first_blocks, global_row // self.block, side="right")) - 1
        within = global_row - self._first_blocks[last] * self.block
        return self._consumed[last] + np.rint(self._quotas[last] * within / self.block).astype(int)

    def rates_at(self, global_row: int) -> np.ndarray:
        """Return the share of rows of each task in the block of a row, float64 [tasks]."""
        stage = int(np.searchsorted(self._first_blocks, global_row // self.block, side="right")) - 1
        return self._quotas[stage] / self.block
