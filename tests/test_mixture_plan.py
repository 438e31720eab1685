"""The plan of a mixture: arithmetic by hand, and its warnings."""

import pytest

from tests.stores import write_store
from xlmjax.data import mixture as mixtures
from xlmjax.data.layout import Delimiters, make_layout
from xlmjax.planning import mixture_plan

LENGTH, ROWS_PER_STEP, STEPS = 10, 4, 96


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")

    def task(name, kind, features, languages):
        store = write_store(folder / name, features, languages, task=name, num_shards=1)
        layout = make_layout(kind, store, LENGTH, Delimiters(eos=1, pad=2))
        return mixtures.Task(name, store, layout)

    tasks = [
        # 40 examples of 4 tokens and an end symbol: 200 tokens, 20 rows.
        task("mlm.en", "stream", {"tokens": [[7, 8, 9, 10]] * 40}, {"tokens": "en"}),
        # 30 pairs of 2 + 4 and 1 + 2 tokens: a row each; one more is too long for a row.
        task(
            "tlm.en_sw",
            "pack",
            {"tokens": [[7, 8]] * 30 + [[7] * 9], "target_tokens": [[9]] * 31},
            {"tokens": "en", "target_tokens": "sw"},
        ),
    ]
    return mixtures.build_mixture(
        tasks,
        {"pair_share": 0.25},
        name="mlm",
        length=LENGTH,
        rows_per_step=ROWS_PER_STEP,
        num_steps=STEPS,
        seed=0,
        block=64,
    )


@pytest.fixture(scope="module")
def plans(mixture):
    return mixture_plan.plan_tasks("mlm", mixture, ROWS_PER_STEP, STEPS)


def test_tokens_rates_and_epochs_by_hand(plans):
    text, pair = plans
    assert (text.examples, text.tokens, text.rate, text.fill) == (40, 200, 0.75, 1.0)
    # 96 steps of 4 rows, three quarters of them text: 288 rows of 20 an epoch.
    assert text.epochs == pytest.approx(14.4)
    assert text.seen == pytest.approx(2880)
    assert text.fertility == pytest.approx(4 / 5)  # the store counts 5 characters an example
    assert (pair.examples, pair.tokens) == (31, 30 * 7)
    assert pair.fill == pytest.approx(0.7)
    assert pair.epochs == pytest.approx(96 / 30)
    assert pair.dropped == {"longer than a row": 1}


def test_a_language_counts_its_text_and_its_side_of_pairs(plans, mixture):
    by_language = {row.code: row for row in mixture_plan.plan_languages(plans, mixture.tasks)}
    seen = plans[1].seen
    swahili = seen * 31 / (31 + 69)  # 31 of the store's 100 tokens are on the Swahili side
    assert by_language["sw"].tokens == pytest.approx(swahili)
    assert by_language["sw"].from_pairs == 1
    assert by_language["en"].tokens == pytest.approx(2880 + seen - swahili)
    assert sum(row.share for row in by_language.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("step", "said"), [(70, []), (81, ["begins at step 96, but the run ends"])]
)
def test_a_stage_that_never_starts_is_told(mixture, step, said):
    """Stages begin at blocks of 64 rows, 16 steps: step 81 means step 96, where the run ends."""
    staged = mixtures.build_mixture(
        mixture.tasks,
        {"pair_share": 0.25, "stages": ((step, "pair_share=0.5"),)},
        name="mlm",
        length=LENGTH,
        rows_per_step=ROWS_PER_STEP,
        num_steps=STEPS,
        seed=0,
        block=64,
    )
    found = list(mixture_plan.late_stages(staged, ROWS_PER_STEP, STEPS))
    assert len(found) == len(said)
    assert all(part in sentence for part, sentence in zip(said, found, strict=True))


def test_warnings_name_what_to_change(plans, mixture):
    by_language = mixture_plan.plan_languages(plans, mixture.tasks)
    said = "\n".join(mixture_plan.warnings(plans, by_language))
    assert "mlm.en is read 14.4 times, more than 4" in said
    assert "tlm.en_sw: 1 examples dropped (longer than a row)" in said
    assert "tlm.en_sw is a pair, but no text of sw alone is in the mixture" in said
    assert "tlm.en_sw is read" not in said
    rare = [mixture_plan.LanguagePlan("sw", 5.0, 0.0004, 0.3, 0.0)]
    assert "Swahili (sw) makes 0.040% of the tokens" in "".join(mixture_plan.warnings([], rare))


def test_the_table_names_everything(plans, mixture):
    by_language = mixture_plan.plan_languages(plans, mixture.tasks)
    printed = mixture_plan.format_plan(plans, by_language)
    for word in ("mlm.en", "tlm.en_sw", "Swahili", "75.00%", "14.40", "from pairs"):
        assert word in printed
