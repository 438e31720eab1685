"""What a run will read: tokens, rates and epochs of every task and language, with warnings."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from xlmjax import languages
from xlmjax.data.mixture import Mixture, Task

MANY_EPOCHS = 4.0
RARE_LANGUAGE = 0.001


@dataclasses.dataclass(frozen=True)
class TaskPlan:
    """One task over the run; tokens are real ones, delimiters included."""

    group: str
    name: str
    languages: tuple[str, ...]
    examples: int
    tokens: int  # of one epoch
    characters: int
    pieces: int  # tokens without delimiters, for the fertility
    fill: float  # real tokens / places of the rows
    rate: float  # share of the rows of its group at the start
    final_rate: float  # the same at the end
    seen: float  # tokens at the end of the run
    epochs: float
    dropped: dict[str, int]
    truncated: int  # examples cut at their end

    @property
    def fertility(self) -> float:
        """Tokens a character of text."""
        return self.pieces / max(self.characters, 1)


@dataclasses.dataclass(frozen=True)
class LanguagePlan:
    """One language over the run, text and its side of every pair together."""

    code: str
    tokens: float
    share: float
    fertility: float
    from_pairs: float  # share of its tokens that come from pairs


def plan_tasks(group: str, mixture: Mixture, rows_per_step: int, num_steps: int) -> list[TaskPlan]:
    """Return what each task of a mixture gives in `num_steps` steps of `rows_per_step` rows."""
    total = rows_per_step * num_steps
    seen_rows = mixture.schedule.rows_until(total)
    first, last = mixture.schedule.rates_at(0), mixture.schedule.rates_at(max(total - 1, 0))
    plans = []
    for index, task in enumerate(mixture.tasks):
        manifest, layout = task.store.manifest, task.layout
        epochs = seen_rows[index] / layout.num_rows
        plans.append(
            TaskPlan(
                group=group,
                name=task.name,
                languages=task.languages,
                examples=manifest.examples,
                tokens=layout.num_tokens,
                characters=sum(manifest.characters[side] for side in manifest.sides),
                pieces=sum(manifest.tokens[side] for side in manifest.sides),
                fill=layout.num_tokens / (layout.num_rows * layout.places),
                rate=float(first[index]),
                final_rate=float(last[index]),
                seen=float(epochs * layout.num_tokens),
                epochs=float(epochs),
                dropped={**manifest.dropped, **layout.dropped},
                truncated=layout.truncated,
            )
        )
    return plans


def plan_languages(plans: Sequence[TaskPlan], tasks: Sequence[Task]) -> list[LanguagePlan]:
    """Return what each language gets, the most frequent first.

    A pair's tokens are divided among its languages as its store holds them.
    """
    tokens: dict[str, float] = {}
    paired: dict[str, float] = {}
    pieces: dict[str, int] = {}
    characters: dict[str, int] = {}
    for plan, task in zip(plans, tasks, strict=True):
        manifest = task.store.manifest
        for feature in manifest.sides:
            code = task.store.language(feature)
            share = plan.seen * manifest.tokens[feature] / max(plan.pieces, 1)
            tokens[code] = tokens.get(code, 0.0) + share
            paired[code] = paired.get(code, 0.0) + share * task.is_pair
            pieces[code] = pieces.get(code, 0) + manifest.tokens[feature]
            characters[code] = characters.get(code, 0) + manifest.characters[feature]
    total = sum(tokens.values())
    return [
        LanguagePlan(
            code,
            amount,
            amount / total,
            pieces[code] / max(characters[code], 1),
            paired[code] / amount if amount else 0.0,
        )
        for code, amount in sorted(tokens.items(), key=lambda item: -item[1])
    ]


def warnings(plans: Sequence[TaskPlan], by_language: Sequence[LanguagePlan]) -> Iterator[str]:
    """Yield what deserves a second look before the run starts, a sentence each."""
    for plan in plans:
        if plan.epochs > MANY_EPOCHS:
            yield (
                f"{plan.name} is read {plan.epochs:.1f} times, more than {MANY_EPOCHS:g}: "
                "lower its rate (data.mixing), shorten the run or add text"
            )
        for reason, count in plan.dropped.items():
            if count:
                yield f"{plan.name}: {count:,} examples dropped ({reason})"
        if plan.truncated:
            yield (
                f"{plan.name}: {plan.truncated:,} examples are longer than a row and are cut at "
                "the end of the longer side: raise train.length, or the length of the objective"
            )
    for row in by_language:
        if row.share < RARE_LANGUAGE:
            name = languages.get(row.code).name
            yield (
                f"{name} ({row.code}) makes {row.share:.3%} of the tokens, below "
                f"{RARE_LANGUAGE:.1%}: lower data.mixing.alpha"
            )
    with_text = {plan.languages[0] for plan in plans if len(plan.languages) == 1}
    for plan in plans:
        for code in plan.languages if len(plan.languages) == 2 else ():
            if with_text and code not in with_text:
                yield f"{plan.name} is a pair, but no text of {code} alone is in the mixture"


def late_stages(mixture: Mixture, rows_per_step: int, num_steps: int) -> Iterator[str]:
    """Yield a sentence for each stage of `data.mixing.stages` that the run ends before."""
    total, block = rows_per_step * num_steps, mixture.schedule.block
    for first_row in mixture.schedule.first_rows:
        if first_row >= total:
            yield (
                f"a stage of data.mixing.stages begins at step {-(-first_row // rows_per_step):,}, "
                f"but the run ends after {num_steps:,} (stages begin at multiples of {block:,} "
                "rows): name an earlier step, or raise train.num_steps"
            )


def format_plan(plans: Sequence[TaskPlan], by_language: Sequence[LanguagePlan]) -> str:
    """Return the two tables, for a terminal."""
    staged = any(plan.rate != plan.final_rate for plan in plans)
    head = ["task", "examples", "tokens", "tok/char", "fill", "rate", "seen", "epochs"]
    rows = [
        [
            plan.name,
            f"{plan.examples:,}",
            f"{plan.tokens:,}",
            f"{plan.fertility:.3f}",
            f"{plan.fill:.1%}",
            f"{plan.rate:.2%}" + (f" > {plan.final_rate:.2%}" if staged else ""),
            f"{plan.seen:,.0f}",
            f"{plan.epochs:.2f}",
        ]
        for plan in plans
    ]
    total = sum(plan.seen for plan in plans)
    pairs = sum(plan.seen for plan in plans if len(plan.languages) == 2)
    language_rows = [
        [
            row.code,
            languages.get(row.code).name,
            f"{row.tokens:,.0f}",
            f"{row.share:.2%}",
            f"{row.fertility:.3f}",
            f"{row.from_pairs:.1%}",
        ]
        for row in by_language
    ]
    return "\n".join(
        [
            *_table(head, rows, left=1),
            "",
            *_table(
                ["", "language", "tokens", "share", "tok/char", "from pairs"], language_rows, left=2
            ),
            "",
            f"{total:,.0f} tokens in all, {pairs / max(total, 1):.1%} of them from pairs",
        ]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> Iterator[str]:
    """Yield aligned lines; the first `left` columns are words, the others numbers."""
    widths = np.max([[len(cell) for cell in row] for row in [head, *rows]], axis=0)
    for row in (head, *rows):
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
