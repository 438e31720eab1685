"""Rules by the names of parameters, ((regex, value), ...), as several fields of a config hold."""

import re
from collections.abc import Sequence
from typing import Any


def check_rules(rules: Sequence[Any], field: str, value: str) -> list[tuple[str, Any]]:
    """Return the rules; raises `ValueError` naming the field and the rule that is none.

    `value` is what the second of a rule is called.
    """
    checked = []
    for rule in rules:
        try:
            pattern, chosen = rule
            re.compile(pattern)
        except (TypeError, ValueError, re.error) as error:
            raise ValueError(f"{field}: {rule!r} is no (regex, {value}) ({error})") from None
        checked.append((pattern, chosen))
    return checked
