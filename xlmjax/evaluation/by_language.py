"""What probes of pairs say of each language, for charts beside its losses."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence


def means_by_language(
    found: Iterable[tuple[Sequence[str], Mapping[str, float]]],
) -> Iterator[tuple[str, float]]:
    """Yield `<language>/<metric>`: the mean over all entries (languages, metrics) that name it.

    A metric that only some of them have is the mean over those.
    """
    values: dict[str, dict[str, list[float]]] = {}
    for codes, metrics in found:
        for code in dict.fromkeys(codes):
            own = values.setdefault(code, {})
            for metric, value in metrics.items():
                own.setdefault(metric, []).append(value)
    for code in sorted(values):
        for metric, each in values[code].items():
            yield f"{code}/{metric}", statistics.fmean(each)
