"""A mixture ready to read: stores in rows of one length, and the schedule that orders them."""

import dataclasses
import json
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xlmjax.data import features, mixing
from xlmjax.data.layout import Delimiters, Layout, Whole, layout_field, make_layout
from xlmjax.data.permutation import derive_key
from xlmjax.data.store import TokenStore
from xlmjax.data.vocabulary import Vocabulary

MIXTURES_FILE = "mixture.json"


@dataclasses.dataclass(frozen=True)
class Task:
    """One prepared task in rows of one length."""

    name: str
    store: TokenStore
    layout: Layout

    @property
    def is_pair(self) -> bool:
        """Say whether its examples are sentence pairs."""
        return len(self.store.manifest.sides) == 2

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of its languages, the first side's first."""
        return tuple(map(self.store.language, self.store.manifest.sides))


@dataclasses.dataclass(frozen=True)
class MixingConfig:
    """How rates follow from sizes; the fields of `data.mixing`, one stage of them."""

    kind: str = "alpha"
    alpha: float = 0.7
    temperature: float = 1.0
    max_epochs: float = 4.0
    rates: tuple[tuple[str, float], ...] = ()
    pair_share: float = 0.5
    languages: tuple[str, ...] = ()  # empty: all; otherwise tasks of other languages rest

    def __post_init__(self) -> None:
        if self.kind not in ("alpha", "temperature", "unimax", "explicit"):
            raise ValueError(
                f"data.mixing.kind={self.kind!r} is not one of: "
                "alpha, temperature, unimax, explicit"
            )
        if self.pair_share != -1 and not 0 <= self.pair_share <= 1:
            raise ValueError(f"data.mixing.pair_share={self.pair_share} must be -1 or in [0, 1]")


def own_tasks(data: Any, name: str) -> set[str] | None:
    """Return the tasks that "mlm", "clm", "ae", "tlm" or "mt" stand for in a config.

    None for other names.
    """
    if name in ("mlm", "clm", "ae"):
        return {f"{name}.{code}" for code in data.languages}
    pairs = [sorted(pair.split("-")) for pair in data.pairs]
    if name == "tlm":
        return {f"tlm.{'_'.join(pair)}" for pair in pairs}
    if name == "mt":
        return {f"mt.{'_'.join(way)}" for pair in pairs for way in (pair, pair[::-1])}
    return None


def resolve_names(data: Any, names: Sequence[str]) -> tuple[str, ...]:
    """Return the task names behind mixture or task names, from what `prepare` wrote.

    `data` is the section of the config. Raises `ValueError` naming what is missing, or prepared for
    other languages or pairs, and the remedy.
    """
    known = _prepared(data.stores, names)
    path = pathlib.Path(data.stores) / MIXTURES_FILE
    missing = [name for name in names if name not in known]
    if missing:
        raise ValueError(
            f"{path}: no prepared mixture {', '.join(map(repr, missing))}; "
            "run `xlmjax prepare` with the same --config"
        )
    for name in names:
        expected, found = own_tasks(data, name), set(known[name]["tasks"])
        if expected is not None and expected != found:
            raise ValueError(
                f"{path}: {name!r} was prepared for other data.languages or data.pairs: lacks "
                f"{', '.join(sorted(expected - found)) or 'nothing'}, has besides "
                f"{', '.join(sorted(found - expected)) or 'nothing'}; run `xlmjax prepare` with "
                "the same --config, or give each config a data.stores of its own"
            )
        # Which of them have files is not known here, so languages are compared, not tasks; TFDS has
        # the same ones for every config.
        looked_for = known[name].get("languages", data.languages)
        from_files = any(
            section.get("xnli") for section in (data.train, data.validation, data.test)
        )
        if name == "xnli" and from_files and set(looked_for) != set(data.languages):
            raise ValueError(
                f"{path}: 'xnli' was prepared for data.languages={', '.join(looked_for)}, and this "
                f"config has {', '.join(data.languages)}; run `xlmjax prepare` with the same "
                "--config, or give each config a data.stores of its own"
            )
    return tuple(dict.fromkeys(task for name in names for task in known[name]["tasks"]))


def own_rates(data: Any, names: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Return (task, rate) of a mixture that brings its own rates; () where data.mixing decides.

    Raises `ValueError` where such a mixture stands beside other names.
    """
    known = _prepared(data.stores, names)
    brought = [name for name in names if known[name]["rates"]]
    if brought and len(names) > 1:
        raise ValueError(
            f"data.mixture={tuple(names)}: {brought[0]!r} is a seqio mixture with rates of its "
            "own, which say nothing of the others; name it alone, or name its tasks"
        )
    return tuple(
        pair
        for name in brought
        for pair in zip(known[name]["tasks"], known[name]["rates"], strict=True)
    )


def _prepared(stores: str | pathlib.Path, names: Sequence[str]) -> dict[str, Any]:
    """Return name -> {tasks, rates} as `prepare` wrote it; a task that has a store is one too."""
    if "://" in str(stores):
        raise ValueError(
            f"data.stores={str(stores)!r}: stores are memory-mapped, so name a folder of a file "
            "system that every host mounts"
        )
    folder = pathlib.Path(stores)
    path = folder / MIXTURES_FILE
    known = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    for name in names:
        if name not in known and any(map(TokenStore.is_finished, folder.glob(f"{name}/*"))):
            known[name] = {"tasks": [name], "rates": None}
    return known


def open_tasks(
    data: Any,
    names: Sequence[str],
    split: str,
    vocabulary: Vocabulary,
    length: int,
    layout: str = "",
    group: str = "",
    whole: Whole | None = None,
) -> tuple[Task, ...]:
    """Open the stores of some tasks and lay them out in rows of `length` tokens.

    `data` is the section of the config. An entry `group` of config.objectives may ask for a
    `layout` of its own, and for texts that stay `whole`.
    """
    delimiters = Delimiters.of(data, vocabulary)
    tasks = []
    for name in resolve_names(data, names):
        place = pathlib.Path(data.stores) / name / split
        store = TokenStore.open(place, vocabulary.fingerprint, verify=data.verify)
        kind = layout or data.layout[layout_field(store)]
        field = f"objectives.{group}.layout" if layout else ""
        rows = make_layout(kind, store, length, delimiters, field, whole)
        if not rows.num_rows:
            remedy = "raise train.length" + (f" or objectives.{group}.length" if group else "")
            raise ValueError(
                f"{store.directory}: no example fits a row of {length} tokens; {remedy}, or mend "
                "the corpus"
            )
        tasks.append(Task(name, store, rows))
    return tuple(tasks)


def rates_of(tasks: Sequence[Task], mixing_config: MixingConfig, budget: float) -> np.ndarray:
    """Return the rate of each task, float64 [tasks]: the share of rows it gets, 0 for none.

    Sizes are rows an epoch. `budget` is the number of rows of the run or stage, for UniMax.
    With a `pair_share`, text and pairs are mixed apart, as in XLM, and then weighed against
    each other.
    """
    active = [index for index, task in enumerate(tasks) if _is_active(task, mixing_config)]
    rates = np.zeros(len(tasks))
    pairs = [index for index in active if tasks[index].is_pair]
    texts = [index for index in active if not tasks[index].is_pair]
    if mixing_config.kind == "explicit":
        given = dict(mixing_config.rates)
        unknown = set(given) - {task.name for task in tasks}
        absent = [tasks[index].name for index in active if tasks[index].name not in given]
        if unknown or absent:
            raise ValueError(
                "data.mixing.rates must name every task of the mixture once: "
                f"missing {absent}, unknown {sorted(unknown)}"
            )
        for index in active:
            rates[index] = given[tasks[index].name]
    elif mixing_config.pair_share == -1 or not pairs or not texts:
        rates[active] = _mix([tasks[index] for index in active], mixing_config, budget)
    else:
        shares = ((texts, 1 - mixing_config.pair_share), (pairs, mixing_config.pair_share))
        for group, share in shares:
            if share:
                chosen = [tasks[index] for index in group]
                rates[group] = share * _mix(chosen, mixing_config, share * budget)
    if not rates.sum() > 0:
        raise ValueError("data.mixing leaves no task of data.mixture with a rate above 0")
    return rates / rates.sum()


def _is_active(task: Task, mixing_config: MixingConfig) -> bool:
    allowed = mixing_config.languages
    return not allowed or all(language in allowed for language in task.languages)


def _mix(tasks: Sequence[Task], mixing_config: MixingConfig, budget: float) -> np.ndarray:
    sizes = [task.layout.num_rows for task in tasks]
    if mixing_config.kind == "temperature":
        return mixing.temperature_rates(sizes, mixing_config.temperature)
    if mixing_config.kind == "unimax":
        return mixing.unimax_rates(sizes, budget, mixing_config.max_epochs)
    return mixing.alpha_rates(sizes, mixing_config.alpha)


def parse_stages(fields: Mapping[str, Any]) -> list[tuple[int, MixingConfig]]:
    """Turn `data.mixing` with its `stages` into (first step, mixing) pairs, the first at step 0.

    A stage is (first step, "field=value", ...) and keeps what it does not change; one at step 0
    changes the start itself. Raises `ValueError` naming what is wrong with which stage.
    """
    fields = dict(fields)
    stages = fields.pop("stages", ())
    current = MixingConfig(**{**fields, "rates": tuple(fields.get("rates", ()))})
    parsed = [(0, current)]
    kinds = {
        field.name: type(getattr(current, field.name)) for field in dataclasses.fields(current)
    }
    for first_step, *changes in stages:
        values: dict[str, Any] = {}
        for change in changes:
            name, equals, value = change.partition("=")
            if not equals or name not in kinds or name == "rates":
                known = ", ".join(sorted(set(kinds) - {"rates"}))
                raise ValueError(f"data.mixing.stages: {change!r} is not FIELD=VALUE with: {known}")
            kind = kinds[name]
            try:
                values[name] = tuple(value.split("+")) if kind is tuple else kind(value)
            except ValueError:
                raise ValueError(
                    f"data.mixing.stages: {change!r}: {value!r} is no {kind.__name__}"
                ) from None
        current = dataclasses.replace(current, **values)
        step = int(first_step)
        if step == 0 and len(parsed) == 1:
            parsed = []
        elif step <= parsed[-1][0]:
            raise ValueError(
                f"data.mixing.stages: a stage at step {step} after one at step {parsed[-1][0]}: "
                "give them in order, each step once"
            )
        parsed.append((step, current))
    return parsed


class Mixture:
    """Tasks, and a schedule over their rows: global row indices in, filled rows out."""

    def __init__(self, tasks: Sequence[Task], schedule: mixing.Schedule, length: int):
        self.tasks = tuple(tasks)
        self.schedule = schedule
        self.length = length
        self.features = features_of(self.tasks)
        self.places = max(task.layout.places for task in self.tasks)  # for tokens in a row

    def fill(self, global_rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the batch features of some global rows, [n, length] or [n]."""
        located = self.schedule.locate(global_rows)
        batch = empty_batch(len(global_rows), self.length, self.features)
        batch[features.ROW_IDS][:] = global_rows
        batch[features.TASK_IDS][:] = located.tasks
        for index in np.unique(located.tasks):
            chosen = np.flatnonzero(located.tasks == index)
            part = empty_batch(len(chosen), self.length, self.features)
            layout = self.tasks[index].layout
            layout.fill(located.rows[chosen], located.epochs[chosen], part)
            for feature in self.features:
                if feature.per_token:
                    batch[feature.name][chosen] = part[feature.name]
        return batch


def features_of(tasks: Sequence[Task]) -> tuple[features.Feature, ...]:
    """Return the batch features of some tasks; raises `ValueError` where they have different ones.

    Labelled examples, translations and other text do not share batches.
    """
    names: dict[str, list[str]] = {}
    for task in tasks:
        names.setdefault(layout_field(task.store), []).append(task.name)
    found = {_FEATURES.get(field, features.TEXT) for field in names}
    if len(found) > 1:
        parts = (f"{', '.join(of)} ({_BATCHES.get(field, 'text')})" for field, of in names.items())
        raise ValueError(
            f"data.mixture: {' and '.join(parts)} cannot share batches: give them to different "
            "entries of config.objectives"
        )
    return found.pop() if found else features.TEXT


_FEATURES = {"labelled": features.LABELLED, "translation": features.SEQUENCES}
_BATCHES = {"labelled": "labelled", "translation": "translations", "pair": "pairs"}


def empty_batch(
    rows: int, length: int, of: Sequence[features.Feature] = features.TEXT
) -> dict[str, np.ndarray]:
    """Return arrays of empty rows for every feature."""
    return {
        feature.name: np.full(feature.shape(rows, length), feature.empty, feature.dtype)
        for feature in of
    }


def build_mixture(
    tasks: Sequence[Task],
    mixing_fields: Mapping[str, Any],
    *,
    name: str,
    length: int,
    rows_per_step: int,
    num_steps: int,
    seed: int,
    block: int = mixing.BLOCK,
) -> Mixture:
    """Combine open tasks under the rates of `data.mixing`.

    `name` tells the mixtures of one run apart. Stages begin at the first block boundary at or after
    their step.
    """
    stages: list[mixing.Stage] = []
    parsed = parse_stages(mixing_fields)
    for (step, config), following in zip(parsed, [*parsed[1:], None], strict=True):
        last_step = following[0] if following else num_steps
        budget = max(last_step - step, 1) * rows_per_step
        first_row = -(-step * rows_per_step // block) * block
        if stages and first_row <= stages[-1].first_row:
            raise ValueError(
                f"data.mixing.stages: the stage at step {step} and the one before it fall into the "
                f"same block of {block:,} rows, {block / rows_per_step:.0f} steps of "
                f"{rows_per_step} rows; proportions hold by block: put them further apart"
            )
        counts = mixing.quotas(rates_of(tasks, config, budget), block)
        stages.append(mixing.Stage(first_row, tuple(counts.tolist())))
    sizes = [task.layout.num_rows for task in tasks]
    schedule_seed = int(derive_key(seed, zlib.crc32(name.encode())) >> np.uint64(1))
    return Mixture(tasks, mixing.Schedule(sizes, stages, schedule_seed, block), length)


@dataclasses.dataclass(frozen=True)
class Group:
    """The data of one entry of `config.objectives`: a mixture, and its rows of every batch."""

    name: str
    mixture: Mixture
    rows: int


def places_of(groups: Sequence[Group]) -> int:
    """Return the places for tokens in the rows of one step, padding included."""
    return sum(group.rows * group.mixture.places for group in groups)


def segment_length(groups: Sequence[Group], steps: Sequence[int] = (0,)) -> float:
    """Return the length of the segment that a real token of these steps stands in, on average.

    That is the sum of squared segment lengths over the sum of lengths: the keys a token attends to.
    """
    squares = total = 0
    for group in groups:
        for step in steps:
            batch = group.mixture.fill(np.arange(step * group.rows, (step + 1) * group.rows))
            for name in features.SEGMENTS:
                if name in batch:
                    lengths = segment_lengths(batch[name])
                    squares += int(np.square(lengths).sum())
                    total += int(lengths.sum())
    return squares / max(total, 1)


def segment_lengths(segment_ids: np.ndarray) -> np.ndarray:
    """Return the length of every segment of every row, int64; 0 for ids that no token has."""
    rows, _ = segment_ids.shape
    most = int(segment_ids.max(initial=0)) + 1
    numbered = segment_ids + most * np.arange(rows)[:, None]
    counts = np.bincount(numbered.reshape(-1), minlength=rows * most)
    return counts.reshape(rows, most)[:, 1:]  # id 0 is padding


def length_of(config: Any, name: str) -> int:
    """Return the tokens a row of an entry of `config.objectives`: its own, or `train.length`."""
    length = config.objectives[name].length
    if length < 0 or length == 1:
        raise ValueError(
            f"objectives.{name}.length={length} must be 0 (train.length) or 2 tokens or more"
        )
    return length or config.train.length


def rows_per_group(config: Any) -> dict[str, int]:
    """Return the rows a step of every entry of `config.objectives`, in the order of their names.

    `train.rows` is divided by the `share` of each. Raises `ValueError` on a share that is none.
    """
    names = sorted(config.objectives)
    shares = [config.objectives[name].share for name in names]
    if min(shares, default=1) <= 0:
        raise ValueError(
            f"objectives.{names[shares.index(min(shares))]}.share={min(shares)}: give each "
            "objective a positive share of the rows, or leave it out"
        )
    return dict(zip(names, mixing.quotas(shares, config.train.rows).tolist(), strict=True))


def open_groups(config: Any, vocabulary: Vocabulary) -> tuple[Group, ...]:
    """Open the training data of every entry of `config.objectives`, in the order of their names.

    Their rows are as many as `rows_per_group` says and as long as `length_of` does. Raises
    `ValueError` with the field to change.
    """
    groups = []
    for name, group_rows in rows_per_group(config).items():
        group = config.objectives[name]
        mixture_names = group.mixture or config.data.mixture
        length = length_of(config, name)
        layout = group.layout or config.data.layout.text
        whole = Whole.of(group, f"objectives.{name}", layout, length)
        tasks = open_tasks(
            config.data, mixture_names, "train", vocabulary, length, group.layout, name, whole
        )
        fields = config.data.mixing.to_dict()
        if rates := own_rates(config.data, mixture_names):
            fields |= {"kind": "explicit", "rates": rates}
        unknown = {code for task in tasks for code in task.languages} - set(config.data.languages)
        if unknown:
            raise ValueError(
                f"objectives.{name}: its tasks are in {', '.join(sorted(unknown))}, which "
                "data.languages does not list; the model would have no embedding for them"
            )
        mixture = build_mixture(
            tasks,
            fields,
            name=name,
            length=length,
            rows_per_step=group_rows,
            num_steps=config.train.num_steps,
            seed=config.seed,
        )
        groups.append(Group(name, mixture, group_rows))
    return tuple(groups)
