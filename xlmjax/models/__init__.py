"""Flax NNX modules used as plain pytrees."""
