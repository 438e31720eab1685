"""Objectives: (model, clean batch, key) -> LossOutput."""
