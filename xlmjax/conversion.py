"""Checkpoints of others as workdirs of ours, and back.

from xlmjax.conversion import export_model, import_model
import_model(config, "xlm-roberta-base", "runs/xlmr")  # then --config=runs/xlmr/config.json
export_model("runs/xlmr/config.json", "runs/xlmr", "hf/xlmr")
"""

import dataclasses
import json
import pathlib
import resource
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from xlmjax import languages
from xlmjax.configs import base
from xlmjax.data.vocabulary import BOS, EOS, Vocabulary
from xlmjax.evaluation.sentence_encoder import predicts_next
from xlmjax.experiment import Experiment, build_experiment, load_trained, start_jax
from xlmjax.interop import transfer
from xlmjax.interop.formats import XLM, format_of, pad_id
from xlmjax.interop.parity import Parity, Tokenisation, compare_models, compare_tokenizers
from xlmjax.interop.safetensors import write_safetensors
from xlmjax.interop.source import CONFIG, Source, open_source
from xlmjax.interop.tokenizers import from_dictionary, read_vocabulary, write_vocabulary
from xlmjax.train import write_description
from xlmjax.training.checkpoint import Checkpoints, saved_steps
from xlmjax.training.checkpoint_settings import CheckpointConfig
from xlmjax.training.state import TrainState, from_pure_dict, named_leaves, nest, parameter_axes

REPORT = "conversion.json"
NO_OPTIMIZER = "none"  # of a checkpoint that holds parameters alone
PARITY_LIMIT = 10**9  # parameters
SHARD_BYTES = 5 * 10**9
DTYPES = ("float32", "float16", "bfloat16")


@dataclasses.dataclass
class Report:
    """What a conversion did: nothing of a source is left unsaid."""

    source: str
    kind: str
    parameters: int
    tensors: int
    languages: tuple[str, ...]
    dropped: dict[str, str]  # tensor -> reason
    fresh: tuple[str, ...]  # parameters that the source has nothing for
    renamed: dict[str, str]  # tensor -> parameter, with the layer in brackets
    notes: list[str]
    peak_memory: int = 0  # bytes of this process so far
    parity: Parity | None = None
    tokenisation: Tokenisation | None = None

    def write(self, folder: pathlib.Path) -> None:
        """Write conversion.json."""
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)
        (folder / REPORT).write_text(text + "\n", "utf-8")

    def lines(self) -> list[str]:
        """Return what a user wants to see."""
        found = [
            f"{self.source}: {self.kind}, {self.parameters:,} parameters in {self.tensors:,} "
            f"tensors, {len(self.languages)} languages"
        ]
        found += [f"dropped {name}: {reason}" for name, reason in self.dropped.items()]
        found += [f"new, not in the source: {name}" for name in self.fresh]
        found += [f"note: {note}" for note in self.notes]
        found += [str(part) for part in (self.parity, self.tokenisation) if part is not None]
        return [*found, f"peak memory {self.peak_memory / 2**30:.2f} GiB"]


def import_model(
    config: ConfigDict,
    source: str | pathlib.Path,
    workdir: str | pathlib.Path,
    *,
    vocabulary: str = "",
    codes: str = "",
    codes_keep_case: bool = False,
    language_codes: Sequence[str] = (),
) -> tuple[Experiment, Any, Report]:
    """Write a workdir with the model of a source; returns experiment, model and report.

    config: its mesh is used, and what a source does not say; model and languages are the source's.
    vocabulary: file of ours for a source without tokenizer files.
    codes: of a .pth file: fastBPE's codes; its text was in lower case unless `codes_keep_case`.
    language_codes: names of the languages in the order of their ids, where the source has none.

    Raises `ValueError` naming what is missing or has no place.
    """
    workdir, found = pathlib.Path(workdir), open_source(pathlib.Path(source))
    if saved_steps(workdir):
        raise ValueError(f"--workdir={workdir} holds checkpoints already: name another")
    fields = found.model_fields()
    chosen, notes = _languages(found, language_codes)
    words, more = _vocabulary(found, fields["vocab_size"], vocabulary, codes, not codes_keep_case)
    notes += more
    start_jax(config)
    workdir.mkdir(parents=True, exist_ok=True)
    place = workdir / words.kept_file
    place.write_bytes(words.model)
    config = _run_config(config, found, fields, chosen, place)
    experiment = build_experiment(config)
    if experiment.model.pad_id != pad_id(found.config):
        raise ValueError(
            f"{found.where}: padding has id {pad_id(found.config)}, in the vocabulary "
            f"{experiment.model.pad_id}: it is another model's"
        )
    with jax.set_mesh(experiment.mesh):
        model, plan = _load(experiment, found, chosen)
        identity = dataclasses.replace(experiment.identity, optimizer=NO_OPTIMIZER)
        largest = max(leaf.nbytes for leaf in jax.tree.leaves(model))
        # One array at a time: a copy of all of them would double what is in memory.
        checkpoints = Checkpoints(
            workdir, CheckpointConfig(), identity, concurrent_gb=largest // 10**9 + 1
        )
        checkpoints.save(TrainState(jnp.zeros((), jnp.int32), model, {}))
        checkpoints.close()
    write_description(epath.Path(workdir), experiment, 0)
    report = Report(
        source=str(source),
        kind=found.kind.model_type,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(model)),
        tensors=len(plan.taken),
        languages=tuple(chosen),
        dropped=dict(plan.dropped),
        fresh=plan.fresh,
        renamed={where + tensor.name: tensor.place for where, tensor in plan.taken},
        notes=notes,
        peak_memory=peak_memory(),
    )
    report.write(workdir)
    return experiment, model, report


def export_model(
    config: ConfigDict | str,
    workdir: str | pathlib.Path,
    out: str | pathlib.Path,
    step: int = -1,
    *,
    dtype: str = "float32",
    shard_bytes: int = SHARD_BYTES,
) -> Report:
    """Write a checkpoint as a folder that transformers loads; returns a report.

    Raises `ValueError` where transformers has no model of its shape, naming the fields.
    """
    out = pathlib.Path(out)
    if dtype not in DTYPES:
        raise ValueError(f"--dtype={dtype!r} is unknown; known: {', '.join(DTYPES)}")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"--out={out} is not empty: name another folder")
    experiment, model = load_trained(config, workdir, step)
    return write_folder(experiment, model, out, dtype=dtype, shard_bytes=shard_bytes)


def write_folder(
    experiment: Experiment,
    model: Any,
    out: pathlib.Path,
    *,
    dtype: str = "float32",
    shard_bytes: int = SHARD_BYTES,
) -> Report:
    """Write a model as a folder that transformers loads; raises as `export_model`."""
    cfg = experiment.model
    if cfg.decoder_layers:
        raise ValueError(
            f"model.decoder_layers={cfg.decoder_layers}: transformers' XLM has no decoder, so "
            "there is no folder for this model"
        )
    kind = format_of(cfg)
    out.mkdir(parents=True, exist_ok=True)
    parameters, axes = named_leaves(model), parameter_axes(model)
    codes = list(experiment.config.data.languages)
    rows = [sorted(codes).index(code) for code in codes]
    outgoing = transfer.Outgoing(kind, cfg, parameters, axes, rows)
    with jax.set_mesh(experiment.mesh):
        write_safetensors(out, outgoing.shapes, outgoing.value, jnp.dtype(dtype), shard_bytes)
    content = kind.configuration(cfg) | _special_ids(experiment.vocabulary, kind is XLM)
    content["dtype"] = dtype
    if kind is XLM:
        content |= {
            "causal": predicts_next(experiment.config),
            "n_langs": len(codes),
            "lang2id": {code: index for index, code in enumerate(codes)},
            "id2lang": {str(index): code for index, code in enumerate(codes)},
        }
    (out / CONFIG).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    start = BOS if experiment.config.data.bos else EOS
    notes = write_vocabulary(experiment.vocabulary, out, cfg.max_positions, start)
    return Report(
        source=str(out),
        kind=kind.model_type,
        parameters=sum(leaf.size for leaf in parameters.values()),
        tensors=len(outgoing.shapes),
        languages=tuple(codes),
        dropped=outgoing.dropped,
        fresh=(),
        renamed=outgoing.renamed,
        notes=notes,
        peak_memory=peak_memory(),
    )


def compare(
    experiment: Experiment,
    model: Any,
    report: Report,
    lines: Sequence[tuple[str, str]],
    force: bool = False,
) -> Report:
    """Return a report of an import with what transformers makes of the same model and lines.

    A model of more than `PARITY_LIMIT` parameters is left out unless `force`: it would be in memory
    twice. A .pth file is compared by way of the folder that `export_model` would write.
    """
    source = pathlib.Path(report.source)
    with tempfile.TemporaryDirectory() as temporary:
        if report.parameters > PARITY_LIMIT and not force:
            parity = Parity(
                not_computed=f"more than {PARITY_LIMIT:,} parameters; --parity=always computes it"
            )
            folder = source
        elif experiment.model.decoder_layers:
            parity, folder = Parity(not_computed="transformers' XLM has no decoder"), source
        else:
            folder = source
            if not source.is_dir():
                folder = pathlib.Path(temporary) / "folder"
                write_folder(experiment, model, folder)
            # Without a mesh: three rows need not divide among its devices.
            causal = predicts_next(experiment.config)
            parity = compare_models(folder, format_of(experiment.model), model, causal)
            if any(name.startswith("head/") for name in report.fresh):
                parity = dataclasses.replace(parity, logits=None)  # each has made up its own
        tokenisation = None
        if lines and folder.is_dir():
            tokenisation = compare_tokenizers(folder, experiment.vocabulary, lines)
    return dataclasses.replace(report, parity=parity, tokenisation=tokenisation)


def peak_memory() -> int:
    """Return the largest number of bytes that this process has had in memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def _languages(source: Source, given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return codes of the languages in the order of the source's ids, and notes."""
    codes = list(given) or source.languages
    for index, code in enumerate(given):
        if code in source.languages and source.languages.index(code) != index:
            raise ValueError(
                f"--languages: {code} has id {index} in it and {source.languages.index(code)} in "
                f"{source.where}; leave --languages out, or name what the source does"
            )
    known = [code for code in codes if code in {language.code for language in languages.LANGUAGES}]
    if not source.num_languages:
        strangers = [code for code in codes if code not in known]
        named = f"; not in xlmjax.languages: {', '.join(strangers)}" if strangers else ""
        return known or ["en"], [f"the source has no table of languages{named}"]
    if len(codes) != source.num_languages:
        raise ValueError(
            f"{source.where}: has {source.num_languages} languages and names {len(codes)} of them: "
            "give --languages=CODE,CODE,... in the order of their ids"
        )
    try:
        languages.ids(codes)
    except KeyError as error:
        raise ValueError(
            f"{source.where}: {error.args[0]}, or name them with --languages=CODE,CODE,..."
        ) from None
    return codes, []


def _vocabulary(
    source: Source, size: int, path: str, codes: str, fold: bool
) -> tuple[Vocabulary, list[str]]:
    """Return the vocabulary of a model of `size` words, and notes."""
    if path:
        found = Vocabulary.load(path)
        if found.size != size:
            raise ValueError(
                f"--vocabulary={path} has {found.size:,} words, the model {size:,}: it is another's"
            )
        return found, []
    if source.path.is_dir():
        if codes or not fold:
            raise ValueError(
                f"--codes and --cased are for .pth files: {source.path} is a folder, whose "
                "tokenizer's files are read"
            )
        return read_vocabulary(source.path, size)
    if source.dictionary is None or not codes:
        raise ValueError(
            f"{source.path}: name the file of its BPE codes with --codes, or a vocabulary of ours "
            "with --vocabulary"
        )
    return from_dictionary(source.dictionary, pathlib.Path(codes), fold, size, source.path)


def _run_config(
    config: ConfigDict,
    source: Source,
    fields: Mapping[str, Any],
    codes: Sequence[str],
    vocabulary: pathlib.Path,
) -> ConfigDict:
    """Return the config of a run with the source's model."""
    config = config.copy_and_resolve_references()
    config.data.languages = tuple(codes)
    config.data.vocabulary = str(vocabulary)
    config.data.bos = source.kind is not XLM
    with config.unlocked():
        for name, value in fields.items():
            if name != "vocab_size":
                config.model[name] = type(config.model[name])(value)
        config.model.dtype = "float32"
        config.train.length = min(config.train.length, config.model.max_positions)
        if source.is_causal:
            config.objectives = ConfigDict({"clm": base.objective("causal_lm")})
    return config


def _load(
    experiment: Experiment, source: Source, codes: Sequence[str]
) -> tuple[Any, transfer.Plan]:
    """Return the model with the source's parameters, and what became of each tensor."""
    spec = experiment.spec
    abstract = named_leaves(spec.abstract.model)
    plan = transfer.plan(source, abstract, parameter_axes(spec.abstract.model))
    rows = [list(codes).index(code) for code in sorted(codes)]
    arrays = transfer.load(source, plan, abstract, rows)
    if plan.fresh:
        shardings = {name: abstract[name].sharding for name in plan.fresh}

        def make(key: jax.Array) -> dict[str, jax.Array]:
            leaves = named_leaves(spec.init(key).model)
            return {name: leaves[name] for name in plan.fresh}  # XLA leaves the others out

        arrays |= jax.jit(make, out_shardings=shardings)(jax.random.key(experiment.config.seed))
    return from_pure_dict(spec.abstract.model, nest(arrays)), plan


def _special_ids(vocabulary: Vocabulary, original: bool) -> dict[str, int]:
    found = {
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
        "pad_token_id": vocabulary.pad,
    }
    more = {"unk_index": vocabulary.unk, "mask_index": vocabulary.mask} if original else {}
    return found | more
