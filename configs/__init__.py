"""Experiment configs: `base.py` lists every field, the others change what they mean to change."""

if __name__ != "xlmjax.configs":
    raise ImportError(f"import this package as 'xlmjax.configs', not as {__name__!r}")
