"""Parameters from tensors of others, straight onto a mesh, and back, one tensor in memory."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from xlmjax.interop import names
from xlmjax.interop.formats import Format
from xlmjax.interop.names import Tensor
from xlmjax.interop.source import Source
from xlmjax.interop.stored import StoredArray
from xlmjax.models.config import ModelConfig
from xlmjax.models.xlm import sinusoids

_LANGUAGES, _POSITIONS = "embeddings/languages", "embeddings/positions"
_SINUSOIDS = "transformer.position_embeddings.weight"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What becomes of every tensor of a source, decided before anything is read.

    taken: (parameters' prefix, tensor); dropped: name -> reason; fresh: parameters of ours that
    the source has nothing for.
    """

    taken: tuple[tuple[str, Tensor], ...]
    dropped: Mapping[str, str]
    fresh: tuple[str, ...]


def plan(source: Source, abstract: Mapping[str, Any], axes: Mapping[str, Sequence[str]]) -> Plan:
    """Return what becomes of the tensors of a source, given the parameters of ours by name.

    A head that ours lacks is dropped, a head that the source lacks is fresh. Raises `ValueError`
    where the body of the source has a tensor for which there is no place, lacks one, or has one of
    another shape.
    """
    taken: dict[str, tuple[str, Tensor]] = {}  # by place: of two names of one the later counts
    dropped: dict[str, str] = {}
    fresh: list[str] = []
    shapes = {name: leaf.shape for name, leaf in abstract.items()}
    for where, arrays in source.halves.items():
        wanted = names.tensors(source.kind.table, shapes, where)
        for tensor in wanted:
            if tensor.name in arrays:
                expected = names.their_shape(
                    tensor, shapes[tensor.parameter], axes[tensor.parameter]
                )
                if arrays[tensor.name].shape != expected:
                    raise ValueError(
                        f"{source.path}: {tensor.name} has shape {arrays[tensor.name].shape}, and "
                        f"its options ask for {expected}"
                    )
                taken[tensor.place] = where, tensor
            elif tensor.name.startswith(source.kind.prefix):
                raise ValueError(f"{source.path}: {tensor.name} is missing; fetch all of its files")
            elif tensor.parameter not in fresh:
                fresh.append(tensor.parameter)
        known = {tensor.name for half, tensor in taken.values() if half == where}
        for name in sorted(set(arrays) - known):
            dropped[where + name] = _reason(source, name, arrays)
    placed = {tensor.parameter for _, tensor in taken.values()}
    fresh = [name for name in fresh if name not in placed]
    named = placed | set(fresh)
    if strays := sorted(set(abstract) - named):
        raise ValueError(f"{source.path}: nothing of {source.kind.model_type} is {strays[0]}")
    return Plan(tuple(taken.values()), dropped, tuple(fresh))


def _reason(source: Source, name: str, arrays: Mapping[str, StoredArray]) -> str:
    """Return why a tensor has no parameter; raises `ValueError` where it should have one."""
    table = dict((theirs, ours) for ours, theirs in names.rows(source.kind.table))
    for pattern, reason in source.kind.unused:
        if re.fullmatch(pattern, name):
            return reason
    if table.get(name) == "head/table":
        embeddings = arrays[next(x for x, ours in table.items() if ours == "embeddings/tokens")]
        same = arrays[name] == embeddings or np.array_equal(arrays[name].open(), embeddings.open())
        return (
            "tied to the embeddings, which it equals"
            if same
            else "tied to the embeddings by the options, though it differs from them"
        )
    if name == _SINUSOIDS:
        difference = np.abs(arrays[name].open() - sinusoids(*arrays[name].shape)).max()
        if difference > 1e-4:
            raise ValueError(
                f"{source.path}: {name} is said to be sinusoidal and differs by {difference:.1e}"
            )
        return f"computed: sine and cosine, within {difference:.1e}"
    if name.startswith(source.kind.prefix):
        raise ValueError(f"{source.path}: {name} has no place in a model of ours")
    return "a head for another use"


def load(
    source: Source,
    chosen: Plan,
    abstract: Mapping[str, jax.ShapeDtypeStruct],
    language_rows: Sequence[int],
) -> dict[str, jax.Array]:
    """Return the parameters that a plan takes, each made shard by shard on its devices.

    `language_rows` are the rows of their table of languages in the order of ours. In memory there
    is a shard of one parameter beside those that are placed already.
    """
    parts: dict[str, list[tuple[Tensor, StoredArray]]] = {}
    for where, tensor in chosen.taken:
        array = source.halves[where][tensor.name]
        parts.setdefault(tensor.parameter, []).append((tensor, array))
    return {
        name: _place(abstract[name], found, language_rows if name.endswith(_LANGUAGES) else None)
        for name, found in parts.items()
    }


def _place(
    like: jax.ShapeDtypeStruct,
    parts: Sequence[tuple[Tensor, StoredArray]],
    rows: Sequence[int] | None,
) -> jax.Array:
    def read(index: tuple[slice, ...] | None) -> np.ndarray:
        index = index or ()  # of an array without axes, says its type
        if parts[0][0].layer is None:
            tensor, array = parts[0]
            whole = names.to_ours(tensor, array.open(), like.shape)
            return np.ascontiguousarray((whole if rows is None else whole[rows])[index], like.dtype)
        layers, inside = parts[index[0]], index[1:]
        sizes = [len(range(*s.indices(n))) for s, n in zip(inside, like.shape[1:], strict=True)]
        shard = np.empty((len(layers), *sizes), like.dtype)
        for place, (tensor, array) in zip(shard, layers, strict=True):
            place[...] = names.to_ours(tensor, array.open(), like.shape[1:])[inside]
        return shard

    return jax.make_array_from_callback(like.shape, like.sharding, read)


class Outgoing:
    """The tensors of a model of theirs: their shapes in order, and what makes each.

    `language_rows` are the rows of our table of languages in the order of theirs. `renamed` gives
    the parameter of each tensor, `dropped` those that theirs have no place for, with a reason.
    """

    def __init__(
        self,
        kind: Format,
        cfg: ModelConfig,
        parameters: Mapping[str, jax.Array],
        axes: Mapping[str, Sequence[str]],
        language_rows: Sequence[int],
    ):
        shapes = {name: leaf.shape for name, leaf in parameters.items()}
        self._tensors = {x.name: x for x in names.tensors(kind.table, shapes)}
        self._cfg, self._parameters = cfg, parameters
        self._language_rows = list(language_rows)
        # Their row of position 0; ours is another where the vocabulary's padding has moved.
        begin = cfg.pad_id + 1 if kind.positions_begin_after_pad else cfg.position_offset
        self._first_position = begin
        theirs = {
            name: names.their_shape(tensor, shapes[tensor.parameter], axes[tensor.parameter])
            for name, tensor in self._tensors.items()
        }
        for name, tensor in self._tensors.items():
            if tensor.parameter == _POSITIONS:
                theirs[name] = (begin + cfg.max_positions, cfg.embed_dim)
        if cfg.positions == "sinusoidal":
            theirs[_SINUSOIDS] = (cfg.max_positions, cfg.embed_dim)
        self.shapes = dict(sorted(theirs.items()))
        self.renamed = {name: tensor.place for name, tensor in self._tensors.items()}
        named = {tensor.parameter for tensor in self._tensors.values()}
        self.dropped = {
            name: "no model of transformers has it" for name in parameters if name not in named
        }

    def value(self, name: str) -> np.ndarray:
        """Return one tensor, fetched from the devices."""
        if name not in self._tensors:
            return sinusoids(self._cfg.max_positions, self._cfg.embed_dim)
        tensor = self._tensors[name]
        leaf = self._parameters[tensor.parameter]
        array = np.asarray(jax.device_get(leaf if tensor.layer is None else leaf[tensor.layer]))
        if tensor.parameter.endswith(_LANGUAGES):
            array = array[self._language_rows]
        if tensor.parameter == _POSITIONS and self._first_position != self._cfg.position_offset:
            rows = array[self._cfg.position_offset :]
            unused = np.zeros((self._first_position, rows.shape[1]), rows.dtype)
            array = np.concatenate([unused, rows])
        return names.to_theirs(tensor, array, self.shapes[name])
