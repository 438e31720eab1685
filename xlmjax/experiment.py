"""What a config stands for: devices, vocabulary, model, state and step, each checked."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from xlmjax import languages
from xlmjax.configuration import load_config
from xlmjax.data.layout import layout_field
from xlmjax.data.mixture import Group as DataGroup
from xlmjax.data.mixture import length_of
from xlmjax.data.vocabulary import KEPT_FILES, Vocabulary
from xlmjax.evaluation import Context
from xlmjax.models.config import ModelConfig
from xlmjax.models.seq2seq import EncoderDecoder
from xlmjax.models.xlm import XLM
from xlmjax.objectives import OBJECTIVES, Specials
from xlmjax.ops.schedules import weight_schedule
from xlmjax.parallel import distributed
from xlmjax.parallel.mesh import MeshConfig, check_rows, make_mesh
from xlmjax.preparation.cleaning import Cleaning
from xlmjax.training.averaging import restore_average
from xlmjax.training.checkpoint import FOLDER, Identity, find_checkpoint
from xlmjax.training.checkpoint_settings import CheckpointConfig
from xlmjax.training.optimizer import OptimizerConfig, make_optimizer
from xlmjax.training.scales import make_scales
from xlmjax.training.settings import TrainConfig
from xlmjax.training.state import StateSpec, state_spec
from xlmjax.training.step import Group, TrainStep

# Tasks whose stores hold what an objective reads; by field of data.layout.
_TASKS = {
    "text": "mlm.LANG or ae.LANG",
    "pair": "tlm.A_B",
    "labelled": "xnli.LANG",
    "translation": "mt.SRC_TGT",
}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A config made of checked parts; everything but the data."""

    config: ConfigDict
    train: TrainConfig
    optimizer: OptimizerConfig
    strategy: str
    mesh: jax.sharding.Mesh
    vocabulary: Vocabulary
    model: ModelConfig
    spec: StateSpec

    @property
    def identity(self) -> Identity:
        """What checkpoints of this run say they are of."""
        fields = dataclasses.asdict(self.model)
        return Identity(fields, self.vocabulary.fingerprint, self.optimizer.name)

    @property
    def evaluation_context(self) -> Context:
        """What evaluators stand on."""
        return Context(
            mesh=self.mesh,
            strategy=self.strategy,
            vocabulary=self.vocabulary,
            specials=_specials(self.vocabulary),
            model=self.model,
            clean=Cleaning.from_config(self.config.data),
            config=self.config,
        )


def start_jax(config: ConfigDict, workdir: epath.PathLike = "") -> str:
    """Join the other processes, simulate devices, and keep compiled programs.

    Call it before anything touches a device. Returns the folder of the compiled programs:
    JAX_COMPILATION_CACHE_DIR, `train.compilation_cache`, `compiled` beside a `workdir` in a bucket,
    which outlives this machine and serves all runs there, or one under the user's cache folder.
    """
    if not jax.distributed.is_initialized():
        distributed.initialize(heartbeat_seconds=config.train.heartbeat_seconds)
    count = config.train.num_cpu_devices
    if count:
        try:
            jax.config.update("jax_num_cpu_devices", count)
        except RuntimeError:
            if jax.device_count() != count:
                raise ValueError(
                    f"train.num_cpu_devices={count} comes too late, JAX runs on "
                    f"{jax.device_count()} devices already: start a new process"
                ) from None
    folder = jax.config.values["jax_compilation_cache_dir"]
    if not folder:
        folder = config.train.compilation_cache or _compiled(os.fspath(workdir))
        jax.config.update("jax_compilation_cache_dir", folder)
    return str(folder)


def _compiled(workdir: str) -> str:
    """Return where programs are kept by default; a workdir that is a whole bucket holds them."""
    scheme, _, place = workdir.rstrip("/").partition("://")
    if place:
        return f"{scheme}://{place.rpartition('/')[0] or place}/compiled"
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return str(pathlib.Path(home) / "xlmjax" / "jax")


def build_experiment(
    config: ConfigDict,
    devices: Sequence[jax.Device] | None = None,
    vocabulary: Vocabulary | None = None,
) -> Experiment:
    """Return the parts, before any array exists; raises ValueError naming the wrong field.

    `devices` stand in for those of this machine, `vocabulary` for the file of the config.
    """
    train = TrainConfig.from_config(config.train)
    optimizer = OptimizerConfig.from_config(config.optimizer)
    mesh_config = MeshConfig.from_config(config.mesh)
    mesh = make_mesh(mesh_config, devices)
    check_rows(mesh, train.rows, microbatches=train.microbatches)
    vocabulary = vocabulary or Vocabulary.load(config.data.vocabulary)
    model = ModelConfig.from_config(
        config.model,
        vocab_size=vocabulary.size,
        language_ids=_language_ids(config.data.languages),
        pad_id=vocabulary.pad,
        eos_id=vocabulary.eos,
        num_labels=len(label_names(config)),
    )
    lengths = {f"objectives.{name}.length": length_of(config, name) for name in config.objectives}
    for field, length in {"train.length": train.length, **lengths}.items():
        if model.positions != "rope" and length > model.max_positions:
            raise ValueError(
                f"{field}={length} is longer than model.max_positions={model.max_positions}: raise "
                "the latter, or use model.positions='rope'"
            )
    if config.data.bos and model.decoder_layers:
        raise ValueError(
            "data.bos=True: what a decoder reads or writes begins with </s>; set data.bos=False"
        )
    spec = state_spec(
        functools.partial(EncoderDecoder if model.decoder_layers else XLM, model),
        functools.partial(make_optimizer, optimizer),
        mesh,
        mesh_config.strategy,
    )
    return Experiment(config, train, optimizer, mesh_config.strategy, mesh, vocabulary, model, spec)


def load_trained(
    config: ConfigDict | str, workdir: epath.PathLike, step: int = -1
) -> tuple[Experiment, Any]:
    """Return an experiment and the model of its checkpoint, the latest if `step` < 0.

    `config` is that of the training run, or what `--config` would name; with `checkpoint.average`
    the model is the mean of several checkpoints. Raises ValueError or OSError naming what does not
    fit and the remedy.
    """
    config = load_config(config) if isinstance(config, str) else config
    start_jax(config)
    experiment = build_experiment(config, vocabulary=kept_vocabulary(config, workdir))
    count = CheckpointConfig.from_config(config.checkpoint).average
    place = trained_checkpoint(workdir, step)
    with jax.set_mesh(experiment.mesh):
        model = restore_average(place, experiment.spec, experiment.identity, count)
    return experiment, model


def kept_vocabulary(config: ConfigDict, workdir: epath.PathLike) -> Vocabulary | None:
    """Return a workdir's own copy where the config's file is not to be found from here, else None.

    So workdirs can be moved, and used from any folder; checkpoints know which vocabulary they need.
    """
    if pathlib.Path(config.data.vocabulary).is_file():
        return None
    for name in KEPT_FILES:
        path = epath.Path(workdir) / name
        if path.exists():
            return Vocabulary.from_bytes(path.read_bytes(), str(path))
    return None


def trained_checkpoint(
    workdir: epath.PathLike, step: int = -1, field: str = "workdir"
) -> epath.Path:
    """Return the folder of a checkpoint of a workdir, of the latest if `step` < 0.

    `field` is what errors call the workdir.
    """
    path = epath.Path(workdir)
    return find_checkpoint(path / FOLDER / str(step) if step >= 0 else path, field)


def _language_ids(codes: Sequence[str]) -> tuple[int, ...]:
    """Return ids in the alphabetical order of the codes: the rows of the language table."""
    try:
        return languages.ids(tuple(sorted(codes)))
    except KeyError as error:
        raise ValueError(f"data.languages={tuple(codes)}: {error.args[0]}") from None


def make_groups(experiment: Experiment, data: Sequence[DataGroup]) -> list[Group]:
    """Return the objectives of `config.objectives`, one for each group of data."""
    groups = []
    for part in data:
        fields = experiment.config.objectives[part.name]
        where = f"objectives.{part.name}"
        check_objective(experiment, part.name, part.rows)
        check_kind(part, fields.name, where)
        labels = fields.labels if fields.name == "classification" else ()
        check_labels(part, labels, where)
        for task in part.mixture.tasks if labels else ():
            experiment.model.check_sides(len(task.store.manifest.sides), task.name)
        counts = None
        if fields.sample_alpha or fields.min_count:
            counts = token_counts(part, experiment.vocabulary)
        group = make_group(experiment, part.name, len(part.mixture.tasks), counts)
        try:
            group.objective.check_languages(
                [code for task in part.mixture.tasks for code in task.languages],
                [languages.LANGUAGES[index].code for index in experiment.model.language_ids],
            )
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        groups.append(group)
    return groups


def check_objective(experiment: Experiment, name: str, rows: int) -> None:
    """Raise `ValueError` where an entry of `config.objectives` fits no model, mesh or layout."""
    fields = experiment.config.objectives[name]
    where = f"objectives.{name}"
    if fields.name not in OBJECTIVES:
        raise ValueError(f"{where}.name={fields.name!r} is unknown; known: {', '.join(OBJECTIVES)}")
    check_rows(experiment.mesh, rows, f"the rows of {where}", experiment.train.microbatches)
    _check_model(fields.name, experiment.model, where)
    layout = fields.layout or experiment.config.data.layout.text
    kind = OBJECTIVES[fields.name]
    if layout not in kind.layouts:
        known = " or ".join(map(repr, kind.layouts))
        raise ValueError(f"{where}.layout={layout!r}: {fields.name} needs {known}")
    if layout == "pack" and kind.whole and not fields.sentences:
        raise ValueError(
            f"{where}.layout='pack': {fields.name} needs whole sentences: say how many a row holds "
            f"at most ({where}.sentences) and how long they are ({where}.sentence_length)"
        )


def make_group(
    experiment: Experiment,
    name: str,
    num_tasks: int,
    counts: Mapping[str, np.ndarray] | None = None,
) -> Group:
    """Return one entry of `config.objectives`; `counts` are those of `token_counts`, if asked for.

    Raises `ValueError` naming the entry and its wrong field.
    """
    fields = experiment.config.objectives[name]
    where = f"objectives.{name}"
    try:
        objective = OBJECTIVES[fields.name].from_config(
            fields,
            _specials(experiment.vocabulary, counts),
            num_tasks=num_tasks,
            z_loss=experiment.train.z_loss,
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return Group(name, objective, weight_schedule(fields.weight, f"{where}.weight"))


def _check_model(objective: str, model: ModelConfig, where: str) -> None:
    """Raise `ValueError` where an objective is none for the kind of model."""
    wanted = OBJECTIVES[objective].decoder
    if wanted is True and not model.decoder_layers:
        raise ValueError(f"{where}.name={objective!r} needs a decoder: set model.decoder_layers")
    if wanted is False and model.decoder_layers:
        raise ValueError(f"{where}.name={objective!r} takes no decoder: set model.decoder_layers=0")


def check_kind(part: DataGroup, objective: str, where: str) -> None:
    """Raise `ValueError` where an objective is given data of a kind that it does not read."""
    reads = OBJECTIVES[objective].reads
    for task in part.mixture.tasks:
        found = layout_field(task.store)
        if found not in reads:
            known = ", ".join(_TASKS[kind] for kind in reads)
            raise ValueError(
                f"{where}: objective {objective!r} reads tasks like {known}, but {task.name} "
                f"holds {found}; name others in {where}.mixture"
            )


def label_names(config: ConfigDict) -> tuple[str, ...]:
    """Return the labels that the classifier of a run tells apart; none where it has no classifier.

    Raises `ValueError` where objectives ask for different ones.
    """
    found = {
        name: tuple(group.labels)
        for name, group in config.objectives.items()
        if group.name == "classification"
    }
    if len(set(found.values())) > 1:
        wanted = "; ".join(f"objectives.{name}.labels={labels}" for name, labels in found.items())
        raise ValueError(f"one model has one classifier, but {wanted}: train them apart")
    return next(iter(found.values()), ())


def check_labels(part: DataGroup, labels: Sequence[str], where: str) -> None:
    """Raise `ValueError` unless the data of a group is labelled with just these, in this order."""
    for task in part.mixture.tasks:
        names = task.store.manifest.labels
        if names != tuple(labels):
            raise ValueError(
                f"{where}.labels={tuple(labels)}, but {task.store.directory} is labelled with "
                f"{names or 'nothing'}: name the labels of its task, in the same order"
            )


def make_train_step(experiment: Experiment, groups: Sequence[Group]) -> TrainStep:
    """Return the jitted update of the run."""
    return TrainStep(
        groups,
        make_optimizer(experiment.optimizer, experiment.spec.abstract.model),
        experiment.optimizer.make_schedule(experiment.train.num_steps),
        experiment.spec,
        strategy=experiment.strategy,
        seed=experiment.config.seed,
        microbatches=experiment.train.microbatches,
        skip_nonfinite=experiment.optimizer.skip_nonfinite,
        scales=make_scales(experiment.optimizer.scales, experiment.spec.abstract.model),
    )


def token_counts(data: DataGroup, vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """Return how often each token occurs in a language in the stores of a group, int64 [v].

    By code of the language; special ids count as 0.
    """
    counts: dict[str, np.ndarray] = {}
    for task in data.mixture.tasks:
        manifest = task.store.manifest
        for feature in manifest.sides:
            code = manifest.features[feature].language
            found = counts.setdefault(code, np.zeros(vocabulary.size, np.int64))
            for shard in task.store.flat(feature):
                found += np.bincount(shard, minlength=vocabulary.size)
    for found in counts.values():
        found[list(vocabulary.special_ids)] = 0
    return counts


def _specials(vocabulary: Vocabulary, counts: Any = None) -> Specials:
    return Specials(
        vocabulary.pad,
        vocabulary.eos,
        vocabulary.mask,
        vocabulary.size,
        counts,
        vocabulary.word_starts,
    )
