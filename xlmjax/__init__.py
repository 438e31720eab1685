"""XLM in JAX: cross-lingual language model pretraining, from a laptop to TPU pods."""
