"""Seqio tasks and mixtures; importing `xlmjax.tasks` registers them."""

if __name__ != "xlmjax.tasks":
    raise ImportError(f"import this package as 'xlmjax.tasks', not as {__name__!r}")
