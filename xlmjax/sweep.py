"""Several runs of one config: `config.sweep`, its points times its seeds, a folder for each."""

import dataclasses

from etils import epath
from ml_collections import ConfigDict

from xlmjax.configuration import override


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep."""

    point: str  # "field=value,..." as in config.sweep.points; "" without points
    seed: int
    config: ConfigDict

    @property
    def folder(self) -> str:
        """Name of its workdir under that of the sweep."""
        return ",".join(filter(None, (self.point.replace("/", "_"), f"seed={self.seed}")))


def is_sweep(config: ConfigDict) -> bool:
    """Return whether a config stands for several runs."""
    return bool(config.sweep.points or config.sweep.seeds)


def runs_of(config: ConfigDict) -> list[Run]:
    """Return the runs of a sweep, seed by seed within a point.

    Raises `ConfigError` on a point that is no override, `ValueError` on runs named twice.
    """
    points, seeds = config.sweep.points or ("",), config.sweep.seeds or (config.seed,)
    runs = [_run(config, point, int(seed)) for point in points for seed in seeds]
    folders = [run.folder for run in runs]
    for folder in folders:
        if folders.count(folder) > 1:
            raise ValueError(f"config.sweep: {folder!r} is named twice in points or seeds")
    return runs


def workdirs(config: ConfigDict, workdir: epath.PathLike) -> list[tuple[Run, epath.Path]]:
    """Return the runs of a sweep with the folder of each."""
    return [(run, epath.Path(workdir) / run.folder) for run in runs_of(config)]


def _run(config: ConfigDict, point: str, seed: int) -> Run:
    overrides = [f"--config.{item}" for item in filter(None, point.split(","))]
    one = override(
        config.copy_and_resolve_references(), overrides, f"config.sweep.points: {point!r}"
    )
    one.seed = seed
    one.sweep.points, one.sweep.seeds = (), ()
    return Run(point, seed, one)
