"""Model sizes and recipes: functions that set the fields of `config.model`."""

from ml_collections import ConfigDict

# name -> (embed_dim, num_layers, num_heads)
SIZES: dict[str, tuple[int, int, int]] = {
    "tiny": (128, 3, 4),
    "mini": (256, 6, 8),
    "small": (384, 6, 6),
    "base": (768, 12, 12),
    "xlm": (1024, 12, 8),  # XLM-15
    "nmt": (1024, 6, 8),  # the encoders of XLM's translation models
    "large": (1024, 24, 16),
    "xlm_en": (2048, 12, 16),
    "xl": (2560, 36, 32),  # XLM-R XL
    "xxl": (4096, 48, 32),  # XLM-R XXL
    "xlm_100": (1280, 16, 16),  # XLM-17 and XLM-100, without language embeddings
}


def set_size(config: ConfigDict, size: str) -> None:
    """Set width, depth and heads by name."""
    if size not in SIZES:
        raise ValueError(f"size={size!r} is unknown; known: {', '.join(SIZES)}")
    config.model.embed_dim, config.model.num_layers, config.model.num_heads = SIZES[size]
    config.model.language_embeddings = size != "xlm_100"


def set_recipe(config: ConfigDict, recipe: str) -> None:
    """Set the kind of layer: `xlm` (Lample & Conneau 2019) or `modern`.

    Modern is pre-norm RMS, rotary positions, gated GELU at two thirds of the width, no biases, a
    z-loss: what encoders of 2024 and after agree on (ModernBERT, NeoBERT, EuroBERT).
    """
    if recipe == "xlm":
        return
    if recipe != "modern":
        raise ValueError(f"recipe={recipe!r} is unknown; known: xlm, modern")
    model = config.model
    model.positions = "rope"
    model.norm, model.norm_kind, model.norm_epsilon = "pre", "rms", 1e-6
    model.mlp = "geglu"
    model.mlp_dim = 64 * round(model.embed_dim * 8 / 3 / 64)
    model.bias = False
    config.train.z_loss = 1e-4
