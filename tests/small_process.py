"""A small run in a process of its own: `python -m tests.small_process MODE FOLDER WORKDIR FIELDS`.

MODE `train` trains and prints how it ended; `evaluate` trains with evaluations at the end,
`evaluate=N` after every N steps too, `translate` trains a translator and lets it translate;
`batches` prints a checksum of every row that this process holds of the first steps. FIELDS is
JSON for `small_config`.
"""

import json
import pathlib
import sys
import zlib

import jax
import numpy as np

from tests.small_run import TASKS, small_config
from xlmjax.configs import base
from xlmjax.data.batches import Batches
from xlmjax.data.mixture import open_groups
from xlmjax.experiment import build_experiment, start_jax
from xlmjax.parallel.partition import batch_sharding
from xlmjax.train import train

PREEMPTED = 143


def row_checksums(config, num_steps=4):
    """Row id -> checksum of all features of the row, of the rows on this process's devices."""
    start_jax(config)
    experiment = build_experiment(config)
    (group,) = open_groups(config, experiment.vocabulary)
    batches = Batches(group.mixture, group.rows, batch_sharding(experiment.mesh))
    found = {}
    for step in range(num_steps):
        batch = batches.at(step)
        shards = {name: x.addressable_shards for name, x in batch.items()}
        for index, part in enumerate(shards["row_ids"]):
            for place, row_id in enumerate(np.asarray(part.data)):
                features = [np.asarray(shards[name][index].data)[place] for name in sorted(shards)]
                found[int(row_id)] = zlib.crc32(b"".join(x.tobytes() for x in features))
    return found


def main(mode, folder, workdir, fields):
    config = small_config(pathlib.Path(folder), **json.loads(fields))
    if mode == "batches":
        print(json.dumps({"rows": row_checksums(config)}))
        return 0
    mode, _, every = mode.partition("=")
    if mode == "evaluate":
        steps = int(every or 100_000)
        config.evals.held_out = base.perplexity(tuple(TASKS), every=steps, rows=8)
        config.evals.retrieval = base.retrieval(("tlm",), every=steps, rows=8)
    if mode == "translate":
        config.objectives = {"mt": base.objective("translation", mixture=("mt.en_fr",))}
        config.evals.mt = base.translation(("mt.en_fr",), rows=8, every=1_000)
    result = train(config, pathlib.Path(workdir))
    print(json.dumps({"step": int(result.state.step), "processes": jax.process_count()}))
    return PREEMPTED if result.preempted else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
