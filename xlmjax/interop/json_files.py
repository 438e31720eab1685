"""Files of JSON beside a model: configs, indexes and vocabularies."""

import json
import pathlib
from typing import Any


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Return the object in a file; raises `ValueError`, with its name, where it is none."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}): fetch it again") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: holds {type(found).__name__}, where an object is wanted")
    return found
