"""`xlmjax plan`: what a run will read, before it runs."""

import argparse
import itertools
import sys

from ml_collections import ConfigDict

from xlmjax.data.mixture import open_groups
from xlmjax.data.vocabulary import Vocabulary
from xlmjax.ops.schedules import weight_schedule
from xlmjax.planning import mixture_plan

HELP = """Print what a run will read, from the prepared stores (run `xlmjax prepare` first):
per task examples, tokens, tokens per character, rate, tokens and epochs at the end of the run;
the same per language; and warnings."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: everything is in the config."""


def run(config: ConfigDict, args: argparse.Namespace) -> None:
    """Print the plan of every objective group; warnings go to stderr."""
    weights = {
        name: weight_schedule(fields.weight, f"objectives.{name}.weight")
        for name, fields in config.objectives.items()
    }
    for group in open_groups(config, Vocabulary.load(config.data.vocabulary)):
        plans = mixture_plan.plan_tasks(
            group.name, group.mixture, group.rows, config.train.num_steps
        )
        by_language = mixture_plan.plan_languages(plans, group.mixture.tasks)
        idle = weights[group.name].zeros(config.train.num_steps)
        print(
            f"objectives.{group.name}: {config.train.num_steps:,} steps of {group.rows} rows of "
            f"{group.mixture.length} tokens"
            + (f", of which {idle:,} have weight 0: read, not learned from" if idle else "")
            + "\n"
        )
        print(mixture_plan.format_plan(plans, by_language))
        late = mixture_plan.late_stages(group.mixture, group.rows, config.train.num_steps)
        for warning in itertools.chain(mixture_plan.warnings(plans, by_language), late):
            print(f"warning: {warning}", file=sys.stderr)
