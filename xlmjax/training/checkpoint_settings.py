"""What `config.checkpoint` says: what is saved and kept, and what a run starts from."""

import dataclasses
from typing import Any

from xlmjax.training.name_rules import check_rules

# Words in the names of metrics of which the lowest, or the highest, is the best.
LOWER_IS_BETTER = ("loss", "perplexity", "bits")
HIGHER_IS_BETTER = ("accuracy", "precision", "bleu", "chrf", "pearson", "spearman")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Section `checkpoint` of the config."""

    every: int = 1_000
    keep: int = 3
    keep_every: int = 0
    best_metric: str = ""
    keep_best: int = 1
    average: int = 1
    resume_from: str = ""
    init_from: str = ""
    init_vocabulary: str = ""
    init_rms: tuple[tuple[str, float], ...] = ()
    init_vectors: tuple[str, ...] = ()
    same_data: bool = True

    def __post_init__(self) -> None:
        for field, low in (
            ("every", 1),
            ("keep", 1),
            ("keep_every", 0),
            ("keep_best", 1),
            ("average", 1),
        ):
            if getattr(self, field) < low:
                raise ValueError(f"checkpoint.{field}={getattr(self, field)} must be {low} or more")
        if self.keep_every % self.every:
            raise ValueError(
                f"checkpoint.keep_every={self.keep_every} must be a multiple of checkpoint.every="
                f"{self.every}, or nothing is there to keep"
            )
        if self.best_metric:
            higher_is_better(self.best_metric)
        if self.init_vocabulary and not self.init_from:
            raise ValueError(
                f"checkpoint.init_vocabulary={self.init_vocabulary!r} is that of another "
                "checkpoint: name this one in checkpoint.init_from, or leave it out"
            )
        if self.init_vectors and self.init_from:
            raise ValueError(
                f"checkpoint.init_vectors={self.init_vectors!r} and checkpoint.init_from="
                f"{self.init_from!r} both say what the embeddings start from: leave one out"
            )
        if self.init_rms and not self.init_from:
            raise ValueError(
                f"checkpoint.init_rms={self.init_rms!r} is of the parameters of another "
                "checkpoint: name this one in checkpoint.init_from, or leave it out"
            )
        for pattern, size in check_rules(self.init_rms, "checkpoint.init_rms", "size"):
            if not (isinstance(size, int | float) and size > 0):
                raise ValueError(
                    f"checkpoint.init_rms: {pattern!r} has size {size!r}: give a number above 0"
                )

    @classmethod
    def from_config(cls, config: Any) -> "CheckpointConfig":
        """Return the checked section, from a ConfigDict or another mapping with these fields."""
        return cls(**{field.name: config[field.name] for field in dataclasses.fields(cls)})


def higher_is_better(metric: str) -> bool:
    """Say which end of a metric is the better one, by the last part of its name.

    Raises `ValueError` where the name does not tell.
    """
    words = {*metric.rpartition("/")[2].split("_")}
    lower, higher = words & {*LOWER_IS_BETTER}, words & {*HIGHER_IS_BETTER}
    if bool(lower) == bool(higher):
        raise ValueError(
            f"checkpoint.best_metric={metric!r}: whether the lowest or the highest is the best is "
            f"known of {', '.join((*LOWER_IS_BETTER, *HIGHER_IS_BETTER))}; name one of these"
        )
    return bool(higher)
