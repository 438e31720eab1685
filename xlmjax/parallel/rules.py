"""Every sharding table: logical axis name -> mesh axis or axes.

Models name their axes with the names below and nothing else. A strategy lists the names it
shards; every other name stays whole on each device. To change how a model is laid out over a
mesh, add a table.
"""

Rules = tuple[tuple[str, str | tuple[str, ...]], ...]

# Logical name -> the config field that sets its size, which error messages point at.
NAMES: dict[str, str] = {
    # axes of parameters
    "vocab": "vocab.size",
    "positions": "model.max_positions",
    "languages": "data.languages",
    "types": "model.token_types",  # few, never sharded
    "embed": "model.embed_dim",
    "heads": "model.num_heads",
    "head_dim": "model.embed_dim / model.num_heads",
    "mlp": "model.mlp_dim",
    "layers": "model.num_layers",  # the stacked dimension that the scan over layers runs along
    "rank": "model.lora_rank",  # narrow, never sharded
    "labels": "objectives.*.labels",  # of a classifier: few, never sharded
    "transformed": "model.embed_dim",  # what a head makes of the states; whole, as they are
    "norm": "model.embed_dim",  # scale and bias of a norm: small, never sharded
    # axes of activations
    "act_batch": "train.rows / train.microbatches",
    "act_length": "train.length",
    "act_picks": "train.length",  # the static number of targets a row
    "act_embed": "model.embed_dim",
    "act_heads": "model.num_heads",
    "act_head_dim": "model.embed_dim / model.num_heads",
    "act_mlp": "model.mlp_dim",
    "act_vocab": "vocab.size",
}

_BATCH = ("replica", "data", "fsdp")

STRATEGIES: dict[str, Rules] = {
    # Parameters whole on every device; only the batch is split.
    "data": (("act_batch", _BATCH),),
    # Parameters and optimizer state split along `embed`, gathered layer by layer (ZeRO-3).
    "fsdp": (
        ("act_batch", _BATCH),
        ("embed", "fsdp"),
    ),
    # Megatron: heads, feed-forward and vocabulary split, one all-reduce a block.
    "tensor": (
        ("act_batch", _BATCH),
        ("act_heads", "tensor"),
        ("act_mlp", "tensor"),
        ("act_vocab", "tensor"),
        ("heads", "tensor"),
        ("mlp", "tensor"),
        ("vocab", "tensor"),
    ),
    # Both: every matrix split two ways.
    "fsdp_tensor": (
        ("act_batch", _BATCH),
        ("act_heads", "tensor"),
        ("act_mlp", "tensor"),
        ("act_vocab", "tensor"),
        ("embed", "fsdp"),
        ("heads", "tensor"),
        ("mlp", "tensor"),
        ("vocab", "tensor"),
    ),
}
