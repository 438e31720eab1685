"""Plans for a slice in order of promise: mesh, remat and microbatches; the compiler judges them.

The estimates here only order plans and pass over hopeless ones. They know one kind of model, a
stack of layers with a vocabulary, and no more than leading terms.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

from xlmjax.models.config import ModelConfig
from xlmjax.parallel.mesh import AXES
from xlmjax.planning.fit import FitReport
from xlmjax.planning.hardware import Accelerator

LAST_TRIES = 4  # of the smallest plans, where none of the promising ones fits
LARGEST_TENSOR = 8  # heads of a layer and its all-reduces leave nothing to gain beyond
_OPTIMIZER = {"lion": 1.0, "adafactor": 0.05}  # numbers a parameter; of others Adam's two
# What a layer keeps for the backward pass, bytes a token and unit of width (Korthikanti et al.
# 2022, section 4.1, without dropout masks), and the share of a forward pass that is run again.
_KEPT = {"none": 32.0, "dots": 20.0, "full": 2.0}
_REPEATED = {"none": 0.0, "dots": 0.1, "full": 1.0}
_LOGITS = 2**27  # numbers at a time in the head: `ops.cross_entropy.ONE_PRODUCT`


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the search changes of a config."""

    replica: int
    data: int
    fsdp: int
    tensor: int
    remat: str
    microbatches: int

    @property
    def fields(self) -> dict[str, int | str]:
        """Field of the config -> value."""
        mesh: dict[str, int | str] = {f"mesh.{axis}": getattr(self, axis) for axis in AXES}
        return mesh | {"model.remat": self.remat, "train.microbatches": self.microbatches}


@dataclasses.dataclass(frozen=True)
class Work:
    """What a step has to do, whatever the plan."""

    model: ModelConfig
    rows: int
    length: int
    model_flops: float | None  # of one step, over all devices
    optimizer: str


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a plan may need of each device."""

    bytes: float
    seconds: float


def plans(work: Work, num_devices: int, slices: int) -> Iterator[Plan]:
    """Yield every plan whose sizes divide; one slice is one `replica`."""
    model, here = work.model, num_devices // slices
    for fsdp, tensor in itertools.product(_powers(here), _powers(min(here, LARGEST_TENSOR))):
        divides = (
            here % (fsdp * tensor) == 0
            and model.embed_dim % fsdp == 0
            and all(size % tensor == 0 for size in (model.num_heads, model.mlp_dim))
            and model.vocab_size % tensor == 0
        )
        if not divides:
            continue
        data = here // (fsdp * tensor)
        parts = slices * data * fsdp
        for microbatches in _powers(work.rows // parts):
            if work.rows % (parts * microbatches) == 0:
                for remat in _KEPT:
                    yield Plan(slices, data, fsdp, tensor, remat, microbatches)


def estimate(plan: Plan, work: Work, accelerator: Accelerator) -> Estimate:
    """Return memory and time of a plan by leading terms; the compiler knows better."""
    model = work.model
    parameters, shards = model.num_parameters(), plan.fsdp * plan.tensor
    moments = _OPTIMIZER.get(work.optimizer, 2.0)
    # Parameters, gradients, their sum over microbatches, and what the update makes of them.
    copies = 3 + moments + (plan.microbatches > 1)
    rows = work.rows / (plan.replica * plan.data * plan.fsdp)
    tokens = rows * work.length / plan.microbatches
    layers = model.num_layers + model.decoder_layers
    layer_weights = (parameters - model.vocab_size * model.embed_dim) / layers
    scores = 4 * model.num_heads * work.length / model.embed_dim
    whole = _KEPT["none"] + scores
    kept = whole if plan.remat == "none" else _KEPT[plan.remat]
    width = tokens * model.embed_dim
    activations = width / plan.tensor * (layers * kept + whole)
    logits = min(0.2 * tokens * model.vocab_size / plan.tensor, _LOGITS)
    gathered = 0 if plan.fsdp == 1 else 4 * layer_weights / plan.tensor
    size = 4 * copies * parameters / shards + activations + 8 * logits + gathered

    devices = plan.replica * plan.data * shards
    flops = work.model_flops or 6.0 * parameters * work.rows * work.length
    compute = flops * (1 + _REPEATED[plan.remat] / 3) / devices / accelerator.peak_flops
    # Each microbatch reads the parameters three times and adds to the gradient, in float32.
    moved = plan.microbatches * (3 * 4 * parameters / plan.tensor + 3 * 4 * parameters / shards)
    # The update reads the gradient, and reads and writes parameters and moments.
    moved += 4 * (3 + 2 * moments) * parameters / shards
    seconds = compute + moved / accelerator.memory_bandwidth
    seconds += _exchange_seconds(plan, parameters, layers * width, accelerator)
    return Estimate(size, seconds)


def _exchange_seconds(
    plan: Plan, parameters: int, layer_widths: float, accelerator: Accelerator
) -> float:
    """Return seconds of collectives on rings; `layer_widths` are activations of a microbatch."""
    network = accelerator.network
    if network is None:
        return 0.0
    again = plan.remat != "none"
    held = parameters / plan.tensor  # by an fsdp group
    sent = 0.0
    if plan.fsdp > 1:  # bfloat16 parameters in each pass, gradients back
        # Over a whole slice the compiler sums gradients and cuts, where it else reduce-scatters.
        back = 2 * 2 if plan.data == plan.tensor == 1 else 2
        sent += plan.microbatches * held * (2 * (2 + again) + back)
    if plan.data > 1:  # gradients of tables in float32, of layers in bfloat16
        sent += plan.microbatches * 2 * 3 * held / plan.fsdp
    if plan.tensor > 1:  # two all-reduces a layer and pass
        sent += plan.microbatches * 2 * 2 * 2 * layer_widths * (2 + again)
    seconds = sent / (2 * network.link)
    if plan.replica > 1 and network.dcn:
        seconds += plan.microbatches * 2 * 3 * held / plan.fsdp / network.dcn
    return seconds


def search(
    choices: Sequence[Plan],
    estimates: Sequence[Estimate],
    limit: float,
    judge: Callable[[Plan], FitReport | None],
    wanted: int = 2,
) -> list[FitReport]:
    """Return the reports of the plans that were judged, those that fit first, fastest first.

    Plans come by estimated time while their estimate is within `limit` bytes; each refusal raises
    the estimates of its remat policy to what the compiler asked for, so it is not repeated. Ends
    with `wanted` plans that fit. Where that finds none, one refusal may have said too much of the
    others: the `LAST_TRIES` smallest of them are judged until one fits. `None` from `judge` is no
    answer.
    """
    scale = dict.fromkeys(_KEPT, 1.0)
    reports: list[FitReport] = []
    left = dict(zip(choices, estimates, strict=True))
    for plan, expected in sorted(left.items(), key=lambda pair: (pair[1].seconds, pair[1].bytes)):
        if expected.bytes * scale[plan.remat] > limit:
            continue
        del left[plan]
        found = judge(plan)
        if found is None:
            continue
        reports.append(found)
        if not found.program.fits:
            needed = found.program.required or limit * 1.1
            scale[plan.remat] = max(scale[plan.remat] * 1.02, needed / expected.bytes)
        elif sum(x.program.fits for x in reports) == wanted:
            break
    for plan in sorted(left, key=lambda plan: left[plan].bytes)[:LAST_TRIES]:
        if any(x.program.fits for x in reports):
            break
        found = judge(plan)
        reports += [found] if found else []
    return sorted(reports, key=_rank)


def _rank(found: FitReport) -> tuple[bool, float, float]:
    step = found.forecast.step_seconds if found.forecast else math.inf
    return not found.program.fits, step, found.program.required or 0.0


def _powers(limit: int) -> list[int]:
    """Return 1, 2, 4, ... up to a limit."""
    return [2**n for n in range(max(limit, 1).bit_length())]
