"""Names, dtypes and shapes of every batch feature: the only place that spells them."""

import dataclasses

import numpy as np

TOKENS = "tokens"
TARGET_TOKENS = "target_tokens"  # of token stores: the second side of a pair
LABEL = "label"  # of token stores: one number an example
# Of token stores: text as it was given, UTF-8 bytes, beside the tokens made from it.
SOURCE_TEXT = "source_text"
REFERENCE = "reference"
RAW_OF = {SOURCE_TEXT: TOKENS, REFERENCE: TARGET_TOKENS}  # raw text -> its tokens
POSITIONS = "positions"
SEGMENT_IDS = "segment_ids"  # 0 marks padding; equal non-zero ids attend to each other
LANGUAGE_IDS = "language_ids"  # ids of xlmjax.languages
ROW_IDS = "row_ids"  # global row index of the schedule modulo 2^32, for random keys
TASK_IDS = "task_ids"  # index into the plan's task list
# Of labelled examples: the label at the first token of each segment, NO_LABEL everywhere else, so
# that several examples share a row.
LABELS = "labels"
NO_LABEL = -1
# Of translations: what the target side says where the source side says the part without `target_`.
TARGET_POSITIONS = "target_positions"
TARGET_SEGMENT_IDS = "target_segment_ids"
TARGET_LANGUAGE_IDS = "target_language_ids"


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


# The sides of a translation, feature by feature; other rows have the first alone.
SIDE = (TOKENS, POSITIONS, SEGMENT_IDS, LANGUAGE_IDS)
TARGET_SIDE = (TARGET_TOKENS, TARGET_POSITIONS, TARGET_SEGMENT_IDS, TARGET_LANGUAGE_IDS)
SEGMENTS = (SEGMENT_IDS, TARGET_SEGMENT_IDS)  # non-zero where a real token is

# One row of text: monolingual stream, packed sentences, or a packed pair.
TEXT: tuple[Feature, ...] = (
    *(Feature(name, np.dtype(np.int32), per_token=True) for name in SIDE),
    Feature(ROW_IDS, np.dtype(np.int32), per_token=False),
    Feature(TASK_IDS, np.dtype(np.int32), per_token=False),
)

# The same of labelled examples.
LABELLED: tuple[Feature, ...] = (
    *TEXT,
    Feature(LABELS, np.dtype(np.int32), per_token=True, empty=NO_LABEL),
)

# Translations: rows of sources and, as long, rows of their targets; segment k of a row's target
# translates segment k of its source.
SEQUENCES: tuple[Feature, ...] = (
    *TEXT,
    *(Feature(name, np.dtype(np.int32), per_token=True) for name in TARGET_SIDE),
)
