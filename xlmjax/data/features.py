"""Names, dtypes and shapes of every batch feature: the only place that spells them."""

import dataclasses

import numpy as np

TOKENS = "tokens"
TARGET_TOKENS = "target_tokens"  # of token stores: the second side of a pair
LABEL = "label"  # of token stores: one number an example
POSITIONS = "positions"
SEGMENT_IDS = "segment_ids"  # 0 marks padding; equal non-zero ids attend to each other
LANGUAGE_IDS = "language_ids"  # ids of xlmjax.languages
ROW_IDS = "row_ids"  # global row index of the schedule
TASK_IDS = "task_ids"  # index into the plan's task list
# Of labelled examples: the label at the first token of each segment, NO_LABEL everywhere else, so
# that several examples share a row.
LABELS = "labels"
NO_LABEL = -1


@dataclasses.dataclass(frozen=True)
class Feature:
    """One array of a batch: `per_token` is [rows, length], otherwise [rows]."""

    name: str
    dtype: np.dtype
    per_token: bool
    empty: int = 0  # what stands where nothing is

    def shape(self, rows: int, length: int) -> tuple[int, ...]:
        """Return the global shape of the feature."""
        return (rows, length) if self.per_token else (rows,)


_PER_TOKEN = (TOKENS, POSITIONS, SEGMENT_IDS, LANGUAGE_IDS)

# One row of text: monolingual stream, packed sentences, or a packed pair.
TEXT: tuple[Feature, ...] = (
    *(Feature(name, np.dtype(np.int32), per_token=True) for name in _PER_TOKEN),
    Feature(ROW_IDS, np.dtype(np.int32), per_token=False),
    Feature(TASK_IDS, np.dtype(np.int32), per_token=False),
)

# The same of labelled examples.
LABELLED: tuple[Feature, ...] = (
    *TEXT,
    Feature(LABELS, np.dtype(np.int32), per_token=True, empty=NO_LABEL),
)
