"""Where the time of translation goes, on this machine, contenders in turns.

    uv run python benchmarks/translation_step.py --config=multi30k_tiny:root=DATA \\
        --workdir=runs/multi30k --rounds 5

Three tables, of a trained model, so that outputs are of real lengths: gradients of supervised
translation with several pairs a row against one pair a row (real tokens of both sides a second);
the parts of a back-translation step, and its whole with sentences packed; and writing words with
keys and values kept against running the decoder over all places again, which gives the same words,
and against a beam.
"""

import argparse
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import turns

from xlmjax.data.batches import Batches
from xlmjax.data.mixture import open_groups
from xlmjax.data.packing import pack
from xlmjax.experiment import load_trained
from xlmjax.models.beam import beam_search
from xlmjax.models.generation import Source, generate
from xlmjax.models.seq2seq import Text
from xlmjax.objectives import BackTranslation, Specials, Translation
from xlmjax.objectives.translation import TeacherForcing, text_of
from xlmjax.parallel.partition import batch_sharding


def batch_of(experiment, layout: str, rows: int) -> dict[str, jax.Array]:
    """Return a batch of `rows` rows of the config's pairs in one layout."""
    config = experiment.config.copy_and_resolve_references()
    config.data.layout.translation = layout
    config.train.rows = rows
    [group] = open_groups(config, experiment.vocabulary)
    return Batches(group.mixture, rows, batch_sharding(experiment.mesh)).at(0)


def real_tokens(batch) -> float:
    """Return the tokens of both sides that are no padding."""
    return float(sum((batch[name] != 0).sum() for name in ("segment_ids", "target_segment_ids")))


def to_longest(batch):
    """Return a batch of rows as long as its longest sentence, rounded up to eights."""
    longest = max(
        int((np.asarray(batch[name]) != 0).sum(axis=1).max())
        for name in ("segment_ids", "target_segment_ids")
    )
    length = -(-longest // 8) * 8
    return {name: x[:, :length] if x.ndim == 2 else x for name, x in batch.items()}


def step(function, work: float, *arguments) -> turns.Step:
    """Return a step that runs a jitted function to its end and has done `work`."""

    def run() -> float:
        jax.block_until_ready(function(*arguments))
        return work

    return run


def supervised(experiment, model, arguments) -> dict[str, turns.Step]:
    """Return the gradient of packed and of padded batches with about as many real tokens."""
    objective = Translation(TeacherForcing(num_tasks=2))
    packed = batch_of(experiment, "pack", arguments.rows)
    per_row = real_tokens(batch_of(experiment, "pad", 256)) / 256
    padded = to_longest(batch_of(experiment, "pad", round(real_tokens(packed) / per_row)))
    gradient = jax.jit(
        jax.grad(lambda model, batch: objective.loss(model, batch, jax.random.key(0), 0).sum)
    )
    return {
        name: step(gradient, real_tokens(batch), model, batch)
        for name, batch in (("packed", packed), ("padded", padded))
    }


def together(sources, length: int, most: int, pad: int) -> dict[str, jax.Array]:
    """Return the same sentences packed, at most `most` in rows of `length` of one language."""
    by_name = {name: np.asarray(x) for name, x in sources.items()}
    sizes = (by_name["segment_ids"] != 0).sum(axis=1)
    rows = []
    for language in np.unique(by_name["language_ids"][:, 0]):
        own = np.flatnonzero(by_name["language_ids"][:, 0] == language)
        first, items = pack(sizes[own], length, most)
        rows += [own[items[a:b]] for a, b in itertools.pairwise(first)]
    empty = {"tokens": pad, "positions": 0, "segment_ids": 0, "language_ids": 0}
    batch = {name: np.full((len(rows), length), value) for name, value in empty.items()}
    for row, chosen in enumerate(rows):
        start = 0
        for nth, item in enumerate(chosen.tolist(), start=1):
            place = slice(start, start + sizes[item])
            for name in empty:
                batch[name][row, place] = by_name[name][item, : sizes[item]]
            batch["segment_ids"][row, place] = nth
            start = place.stop
    numbers = {"row_ids": np.arange(len(rows)), "task_ids": np.zeros(len(rows), int)}
    filled = sizes.sum() / batch["tokens"].size
    print(f"{len(sizes)} sentences in {len(rows)} rows of {length}, {filled:.1%} filled\n")
    return {name: jnp.asarray(x, jnp.int32) for name, x in (batch | numbers).items()}


def back_translation(experiment, model, sources, row: int, most: int) -> dict[str, turns.Step]:
    """Return the parts of a step on single sentences, all of it, and that on packed ones.

    Work is sentences. Packed rows have `row` tokens, and at most `most` sentences.
    """
    codes = sorted(experiment.config.data.languages)
    steps = tuple(f"{a}-{b}-{a}" for a, b in (codes, codes[::-1]))
    vocabulary = experiment.vocabulary
    specials = Specials(vocabulary.pad, vocabulary.eos, vocabulary.mask, vocabulary.size)
    forcing, length = TeacherForcing(num_tasks=2), sources["tokens"].shape[1]
    objective = BackTranslation(specials, forcing, steps)
    of_packed = BackTranslation(specials, forcing, steps, sentences=most, sentence_length=length)
    packed = together(sources, row, most, vocabulary.pad)
    key = jax.random.key(0)
    translate = jax.jit(lambda model, batch: objective.translate(model, batch, key))
    translations = translate(model, sources)

    def on_fixed(model, translations, batch):
        return objective.forcing.loss(model, translations, text_of(batch), batch, key).sum

    rows = len(sources["tokens"])

    def whole(objective):
        return jax.jit(jax.grad(lambda model, batch: objective.loss(model, batch, key, 0).sum))

    return {
        "translate": step(translate, rows, model, sources),
        "learn": step(jax.jit(jax.grad(on_fixed)), rows, model, translations, sources),
        "whole": step(whole(objective), rows, model, sources),
        "packed": step(whole(of_packed), rows, model, packed),
    }


def decoding(experiment, model, sources, length: int) -> dict[str, turns.Step]:
    """Return ways to write `length` tokens for each sentence; work is tokens written."""
    vocabulary = experiment.vocabulary
    source = Source(*(sources[n] for n in ("tokens", "segment_ids", "language_ids")))
    rows = len(source.tokens)
    targets, limits = source.language_ids[:, 0], jnp.full(rows, length)
    sizes = {"max_length": length, "eos": vocabulary.eos, "pad": vocabulary.pad}

    def again(model):
        """Write greedily, with the decoder over all places each time."""
        memory = model.read(source.text())
        positions = jnp.broadcast_to(jnp.arange(length), (rows, length))
        languages = jnp.broadcast_to(targets[:, None], positions.shape)

        def is_open(state):
            now, _, ended = state
            return (now + 1 < length) & ~ended.all()

        def write(state):
            now, tokens, ended = state
            target = Text(tokens, positions, jnp.ones_like(tokens), languages)
            hidden = jax.lax.dynamic_slice_in_dim(model.decode(target, memory), now, 1, axis=1)
            words = model.target_logits(hidden)[:, 0].argmax(axis=-1)
            words = jnp.where(now + 1 == length - 1, vocabulary.eos, words)
            words = jnp.where(ended, vocabulary.pad, words).astype(jnp.int32)
            tokens = jax.lax.dynamic_update_slice_in_dim(tokens, words[:, None], now + 1, axis=1)
            return now + 1, tokens, ended | (words == vocabulary.eos)

        start = jnp.full((rows, length), vocabulary.pad, jnp.int32).at[:, 0].set(vocabulary.eos)
        return jax.lax.while_loop(is_open, write, (0, start, jnp.zeros(rows, bool)))[1]

    again, kept = jax.jit(again), jax.jit(lambda m: generate(m, source, targets, limits, **sizes))
    beam = jax.jit(lambda m: beam_search(m, source, targets, limits, beams=5, **sizes))
    np.testing.assert_array_equal(again(model), kept(model).tokens[:, 0])
    work = {
        "again": (again, kept(model).lengths),
        "kept": (kept, kept(model).lengths),
        "beam": (beam, beam(model).lengths),
    }
    print(f"outputs of {float(kept(model).lengths.mean()):.1f} tokens on average, limit {length}\n")
    return {
        name: step(function, float((lengths - 1).sum()), model)
        for name, (function, lengths) in work.items()
    }


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True)
    parser.add_argument("--workdir", required=True, help="of the config's training run")
    parser.add_argument("--rows", type=int, default=16, help="packed rows of the supervised step")
    parser.add_argument("--sentences", type=int, default=32, help="of the other tables")
    parser.add_argument("--row", type=int, default=128, help="tokens of a row of packed sentences")
    parser.add_argument("--most", type=int, default=8, help="sentences in a packed row")
    parser.add_argument("--length", type=int, default=32, help="tokens of the sentences' rows")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    experiment, model = load_trained(arguments.config, arguments.workdir)
    with jax.set_mesh(experiment.mesh):
        measured = functools.partial(turns.measure_here, rounds=arguments.rounds, count=1)
        titles = {
            "packed": "pairs packed",
            "padded": "one pair a row, padded to the longest of the batch",
        }
        speeds = measured(supervised(experiment, model, arguments))
        print(turns.table(speeds, titles, "padded", "real tokens/s"), "\n")
        pairs = batch_of(experiment, "pad", 4 * arguments.sentences)
        fits = np.flatnonzero(~np.asarray(pairs["segment_ids"])[:, arguments.length :].any(axis=1))
        chosen = fits[: arguments.sentences]
        sources = {
            name: x[chosen, : arguments.length] if x.ndim == 2 else x[chosen]
            for name, x in pairs.items()
        }
        titles = {
            "translate": "translate only",
            "learn": "learn from given translations",
            "whole": "the whole step",
            "packed": "the whole step, sentences packed",
        }
        speeds = measured(
            back_translation(experiment, model, sources, arguments.row, arguments.most)
        )
        print(turns.table(speeds, titles, "whole", "sentences/s"), "\n")
        titles = {
            "again": "greedy, prefix run again",
            "kept": "greedy, keys and values kept",
            "beam": "beam of 5, kept",
        }
        speeds = measured(decoding(experiment, model, sources, arguments.length))
        print(turns.table(speeds, titles, "again", "tokens/s"))


if __name__ == "__main__":
    main()
