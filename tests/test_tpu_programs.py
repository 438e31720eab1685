"""What TPU's compiler makes of the train step and of its head, read off the compiled programs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from xlmjax.models.config import ModelConfig
from xlmjax.models.xlm import XLM
from xlmjax.objectives import MaskedLanguageModel, Specials
from xlmjax.ops import schedules
from xlmjax.ops.cross_entropy import AUTO, token_losses
from xlmjax.ops.mesh_axes import TableAxes
from xlmjax.parallel.mesh import BATCH_AXES, MeshConfig, make_mesh
from xlmjax.parallel.partition import batch_sharding
from xlmjax.planning.compiled import collectives, instructions, memory, products
from xlmjax.planning.topology import tpu_devices
from xlmjax.training.optimizer import OptimizerConfig, make_optimizer
from xlmjax.training.state import state_spec
from xlmjax.training.step import Group, TrainStep

pytestmark = [pytest.mark.tpu, pytest.mark.timeout(1800)]
pytest.importorskip("libtpu")

WIDTH = 1024


def model(vocab_size, num_layers, num_heads, length=256, attention="xla"):
    return ModelConfig(
        vocab_size=vocab_size,
        language_ids=tuple(range(15)),
        pad_id=2,
        embed_dim=WIDTH,
        num_layers=num_layers,
        num_heads=num_heads,
        max_positions=length,
        attention=attention,
    )


def compile_step(topology, sizes, cfg, rows_per_device):
    """Return the compiled update of XLM's recipe, and the mesh it is for."""
    mesh = make_mesh(MeshConfig(**sizes), tpu_devices(topology))
    optimizer = OptimizerConfig(learning_rate=1e-4)
    spec = state_spec(
        functools.partial(XLM, cfg),
        functools.partial(make_optimizer, optimizer),
        mesh,
        "fsdp_tensor",
    )
    specials = Specials(pad=2, eos=1, mask=5, size=cfg.vocab_size)
    objective = MaskedLanguageModel(specials, schedules.constant(0.15))
    step = TrainStep(
        [Group("mlm", objective, schedules.constant(1.0))],
        make_optimizer(optimizer, spec.abstract.model),
        optimizer.make_schedule(1000),
        spec,
        strategy="fsdp_tensor",
        seed=0,
    )
    rows = rows_per_device * mesh.size // mesh.shape["tensor"]
    shapes = dict.fromkeys(
        ("tokens", "positions", "segment_ids", "language_ids"), (rows, cfg.max_positions)
    )
    shapes |= dict.fromkeys(("row_ids", "task_ids"), (rows,))
    batch = {
        name: jax.ShapeDtypeStruct(shape, jnp.int32, sharding=batch_sharding(mesh))
        for name, shape in shapes.items()
    }
    with jax.set_mesh(mesh):
        lowered = step.jitted.lower(spec.abstract, np.int32(0), {"mlm": batch})
        return lowered.compile(), mesh


@pytest.mark.parametrize(
    ("topology", "sizes", "cfg", "rows"),
    [
        ("v5e:4x4", {"data": 4, "fsdp": 4}, model(95_000, 12, 8), 16),
        ("v5p:2x2x4", {"data": 4, "fsdp": 4}, model(250_112, 24, 16), 32),
        ("v6e:4x4", {"data": 2, "fsdp": 2, "tensor": 4}, model(250_112, 24, 16), 32),
        ("v5e:4x4", {"data": 2, "fsdp": 4, "tensor": 2}, model(250_112, 24, 16), 16),
        ("v6e:4x4", {"data": 4, "fsdp": 4}, model(95_000, 12, 8), 16),
        # Rows of which `auto` makes our kernel's.
        ("v5p:2x2x4", {"data": 4, "fsdp": 4}, model(95_000, 12, 8, 1024, "auto"), 8),
    ],
    ids=[
        "xlm15-v5e",
        "large-v5p",
        "large-v6e-tensor",
        "large-v5e-tensor",
        "xlm15-v6e",
        "xlm15-v5p-kernel",
    ],
)
def test_train_step(topology, sizes, cfg, rows, capfd):
    compiled, mesh = compile_step(topology, sizes, cfg, rows)
    text = compiled.as_text()
    log = capfd.readouterr().err.lower()
    assert "full rematerialization" not in log
    assert not [x.name for x in instructions(text) if ".remat" in x.name]  # remat is "none"
    assert ("tpu_custom_call" in text) == (cfg.attention == "auto")
    found = collectives(text, mesh)
    words = cfg.vocab_size // mesh.shape["tensor"]

    # No device holds the whole table, all logits of its targets, or one-hot rows of words.
    gathered = [shape for x in found if x.kind == "all-gather" for shape in x.shapes]
    assert not [shape for shape in gathered if {words, cfg.vocab_size} & {*shape.dimensions}]
    for product in products(text):
        for shape in (*product.shapes, *product.operands):
            assert not {words, cfg.vocab_size} & {*shape.dimensions}, product

    # Of the lookup activations travel, and gradients are reduced to the shards of the parameters:
    # nothing of the size of a layer's matrix is reduced whole over fsdp but the table of positions,
    # of which every device needs all rows.
    assert [x for x in found if x.kind == "all-to-all" and x.axes == ("fsdp",)]
    scattered = [x for x in found if x.kind == "reduce-scatter" and "fsdp" in x.axes]
    assert len({x.shapes for x in scattered}) > 2
    whole = [
        x
        for x in found
        if x.kind == "all-reduce"
        and "fsdp" in x.axes
        and any(
            shape.bytes >= WIDTH * WIDTH * 2 and shape.dimensions != (cfg.max_positions, WIDTH)
            for shape in x.shapes
        )
    ]
    assert not whole


def compile_head(tile):
    """Return value and gradient of the head alone: 8,192 targets on each of 16 devices."""
    mesh = make_mesh(MeshConfig(data=4, fsdp=4), tpu_devices("v5e:4x4"))
    axes = TableAxes(("data", "fsdp"), (), ("fsdp",))
    layouts = (axes.batch, axes.table, axes.words, PartitionSpec(BATCH_AXES))
    places = [NamedSharding(mesh, layout) for layout in layouts]
    targets, words = 8192 * mesh.size, 250_112
    shapes = ((targets, WIDTH), (words, WIDTH), (words,), (targets,))
    dtypes = (jnp.bfloat16, jnp.float32, jnp.float32, jnp.int32)
    arguments = [
        jax.ShapeDtypeStruct(shape, dtype, sharding=place)
        for shape, dtype, place in zip(shapes, dtypes, places, strict=True)
    ]

    def loss(hidden, table, bias, targets):
        return token_losses(hidden, table, bias, targets, tile, axes).nll.sum()

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)), out_shardings=tuple(places[:3]))
    with jax.set_mesh(mesh):
        return gradient.lower(*arguments).compile()


def test_head_at_250k_words_needs_a_fifth_of_the_memory_of_plain_logits():
    tiled = memory(compile_head(AUTO)).temporary
    logits = 8192 * 250_112 * 4
    try:
        plain = memory(compile_head(0)).temporary
    except jax.errors.JaxRuntimeError as error:
        assert "Ran out of memory" in str(error)  # noqa: PT017
        plain = logits
    assert plain >= logits
    assert tiled < plain / 5
