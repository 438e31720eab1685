"""Before step 0: do all processes mean the same run?"""

import contextlib
import hashlib
import importlib.metadata
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xlmjax.parallel import distributed

NAME = "set-up"  # of the exchange
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


@contextlib.contextmanager
def agreed() -> Iterator[dict[str, Any]]:
    """Set a run up inside, on every process or on none; yields a dict for what must be equal.

    Fill it with name -> value (what JSON can hold). Where the block raises on one process, or a
    value differs, every process raises: the ones that are well a `ValueError` that tells what the
    others found, or each differing name with the value on each process.
    """
    facts: dict[str, Any] = {}
    try:
        yield facts
    except Exception as error:
        # Without waiting for the others: they may be waiting for what this process did not do.
        distributed.exchange(NAME, json.dumps({"problem": str(error)}), wait=False)
        raise
    told = distributed.exchange(NAME, json.dumps({"facts": facts}, default=str))
    found = [json.loads(text) for text in told]
    for index, one in enumerate(found):
        if "problem" in one:
            raise ValueError(f"process {index} could not start: {one['problem']}")
    differences = disagreements([one["facts"] for one in found])
    if differences:
        raise ValueError(
            f"processes disagree: {'; '.join(differences)}. Start all of them with the same "
            "command, code and stores, and a --workdir that all of them share"
        )


def disagreements(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a phrase for each name of which not all processes have the same value."""
    phrases = []
    for name in dict.fromkeys(name for one in facts for name in one):
        holders: dict[str, list[int]] = {}
        for index, one in enumerate(facts):
            holders.setdefault(repr(one[name]) if name in one else "missing", []).append(index)
        if len(holders) > 1:
            parts = [f"{value} on {_processes(which)}" for value, which in holders.items()]
            phrases.append(f"{name} is {' and '.join(parts)}")
    return phrases


def _processes(indices: Sequence[int]) -> str:
    few = ", ".join(map(str, indices[:4])) + (", ..." if len(indices) > 4 else "")
    return f"process {few}" if len(indices) == 1 else f"processes {few}"


def software() -> dict[str, str]:
    """Return the versions that a run stands on, and a fingerprint of our own source files."""
    digest = hashlib.sha256()
    root = pathlib.Path(__file__).parent.parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"the code of xlmjax": digest.hexdigest()[:16], **versions}
