"""A run without its data or its devices: the train step of a config, with abstract arguments."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from xlmjax import languages
from xlmjax.data import features
from xlmjax.data.mixture import length_of, own_tasks, rows_per_group
from xlmjax.data.vocabulary import UntrainedVocabulary, Vocabulary
from xlmjax.experiment import (
    Experiment,
    build_experiment,
    check_objective,
    make_group,
    make_train_step,
)
from xlmjax.objectives import CausalLanguageModel, MaskedLanguageModel
from xlmjax.ops.masking import num_slots
from xlmjax.parallel.partition import batch_sharding
from xlmjax.training.step import TrainStep

_FEATURES = {"classification": features.LABELLED, "translation": features.SEQUENCES}


@dataclasses.dataclass(frozen=True)
class DryRun:
    """The step that a config trains with, and what it is called with."""

    experiment: Experiment
    train_step: TrainStep
    batches: Mapping[str, Mapping[str, jax.ShapeDtypeStruct]]  # group -> feature
    assumptions: tuple[str, ...]  # a sentence each: what stands for data that nobody looked at

    @property
    def tokens(self) -> int:
        """Places for tokens in the rows of one step; of translations those of both sides."""
        return sum(
            batch[name].size
            for batch in self.batches.values()
            for name in features.SEGMENTS
            if name in batch
        )

    @property
    def model_flops(self) -> float | None:
        """FLOPs that the model needs for one step (`ModelConfig.flops_per_token`).

        Rows are full and of one segment, and every slot for a target is taken: an upper bound of
        what data give. None with a decoder or a classifier, whose FLOPs are not known.
        """
        total = 0.0
        for group in self.train_step.groups:
            rows, length = self.batches[group.name][features.TOKENS].shape
            if isinstance(group.objective, MaskedLanguageModel):
                share = num_slots(group.objective.max_rate, length) / length
            elif isinstance(group.objective, CausalLanguageModel):
                share = 1.0
            else:
                return None
            total += rows * length * self.experiment.model.flops_per_token(length, share)
        return total

    def lower(self) -> jax.stages.Lowered:
        """Return the traced step, ready to be compiled for the devices of its mesh."""
        with jax.set_mesh(self.experiment.mesh):
            return self.train_step.jitted.lower(
                self.experiment.spec.abstract, np.int32(0), self.batches
            )

    def random_batches(self, seed: int = 0) -> dict[str, dict[str, jax.Array]]:
        """Return batches of full rows, one segment each, of random words, for devices that run."""
        generator = np.random.default_rng(seed)
        return {
            group: {
                name: jax.device_put(self._random(name, of.shape, generator), of.sharding)
                for name, of in batch.items()
            }
            for group, batch in self.batches.items()
        }

    def _random(
        self, name: str, shape: tuple[int, ...], generator: np.random.Generator
    ) -> np.ndarray:
        vocabulary, model = self.experiment.vocabulary, self.experiment.model
        if name in (features.TOKENS, features.TARGET_TOKENS):
            low = 1 + max(vocabulary.pad, vocabulary.eos, vocabulary.mask)
            return generator.integers(low, vocabulary.size, shape, np.int32)
        if name in (features.POSITIONS, features.TARGET_POSITIONS):
            return np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape)
        if name == features.ROW_IDS:
            return np.arange(shape[0], dtype=np.int32)
        if name in (features.LANGUAGE_IDS, features.TARGET_LANGUAGE_IDS):
            return np.full(shape, model.language_ids[0], np.int32)
        if name == features.LABELS:
            return np.full(shape, features.NO_LABEL, np.int32)
        return np.full(shape, name in features.SEGMENTS, np.int32)


def dry_run(config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> DryRun:
    """Return the step of a config over `devices` (all of this machine by default).

    Nothing is read but the vocabulary, and where its file is missing `vocab.size` stands for it.
    Raises `ValueError` naming the wrong field.
    """
    vocabulary, assumptions = _vocabulary(config)
    experiment = build_experiment(config, devices, vocabulary)
    groups, batches = [], {}
    for name, rows in rows_per_group(config).items():
        fields = config.objectives[name]
        check_objective(experiment, name, rows)
        # As if every token stood in every language just often enough.
        often = np.full(vocabulary.size, max(1, fields.min_count), np.int64)
        counts = {languages.LANGUAGES[i].code: often for i in experiment.model.language_ids}
        groups.append(make_group(experiment, name, _num_tasks(config, name), counts))
        length = length_of(config, name)
        batches[name] = {
            feature.name: jax.ShapeDtypeStruct(
                feature.shape(rows, length),
                feature.dtype,
                sharding=batch_sharding(experiment.mesh),
            )
            for feature in _FEATURES.get(fields.name, features.TEXT)
        }
    return DryRun(experiment, make_train_step(experiment, groups), batches, tuple(assumptions))


def _vocabulary(config: ConfigDict) -> tuple[Vocabulary, list[str]]:
    path = config.data.vocabulary
    if pathlib.Path(path).is_file():
        return Vocabulary.load(path), []
    size = config.vocab.size
    return UntrainedVocabulary(size), [f"no file at data.vocabulary={path}: vocab.size={size:,}"]


def _num_tasks(config: ConfigDict, name: str) -> int:
    """Return the tasks of an entry of `config.objectives`, a mixture of seqio's counting as one."""
    names = config.objectives[name].mixture or config.data.mixture
    return sum(len(own_tasks(config.data, name) or (name,)) for name in names)
