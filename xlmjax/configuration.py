"""From `--config` and its overrides to a ConfigDict, and back to JSON."""

import difflib
import importlib
import importlib.util
import json
import pathlib
import traceback
import types
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from xlmjax import gin_bindings


class ConfigError(ValueError):
    """A config or override that cannot be used; the message names it and the remedy."""


def config_names() -> list[str]:
    """Return the names of the experiments in configs/."""
    spec = importlib.util.find_spec("xlmjax.configs")
    assert spec is not None
    folders = spec.submodule_search_locations or []
    return sorted(
        path.stem
        for folder in folders
        for path in pathlib.Path(folder).glob("*.py")
        if "def get_config(" in path.read_text("utf-8")
    )


def load_config(name: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Return the config NAME[:KEY=VALUE,...] with `--config.section.field=value` applied.

    NAME is a file of configs/ without `.py`, a path to one, or to the config.json of a workdir.
    Overrides in gin's spelling are taken too. Raises `ConfigError` on an unknown config, field or
    argument, or a value of the wrong type.
    """
    try:
        overrides = gin_bindings.expand(overrides)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    for given in overrides:
        if not given.startswith(("--config.", "--noconfig.")):
            raise ConfigError(f"unknown argument {given!r}; overrides look like --config.x.y=z")
        if "=" not in given and not given.startswith("--noconfig."):
            raise ConfigError(f"{given!r} has no value; write {given}=VALUE")
    stem, _, argument = name.partition(":")
    try:
        if name.endswith(".json"):
            config = _saved_config(epath.Path(name))
        else:
            config = _config_module(stem).get_config(argument)
    except ConfigError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, SyntaxError, ImportError) as error:
        raise ConfigError(f"--config={name}{_line_of(error)}: {_flat(error)}") from error
    return override(config, overrides, f"--config={name} with {' '.join(overrides)}")


def override(config: ConfigDict, overrides: Sequence[str], what: str) -> ConfigDict:
    """Return a config, which may be changed, with `--config.section.field=value` applied.

    Raises `ConfigError`, beginning with `what`, on an unknown field or a value of the wrong type.
    """
    argv = ["xlmjax", *overrides]
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        values(argv)
        return values["config"].value
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{what}: {_flat(error)}") from error


def _flat(error: Exception) -> str:
    """Return the message of an error in one line; ml_collections quotes some of its own."""
    text = str(error.args[0] if error.args else error)
    if text[:1] in "\"'" and text[:1] == text[-1:]:
        text = text[1:-1]
    return text.replace("\\n", ". ").replace("\n", " ").replace("\\'", "")


def _line_of(error: Exception) -> str:
    """Return where in a file of configs an error came up, as `, FILE:LINE`."""
    if isinstance(error, SyntaxError) and error.filename:
        return f", {error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [x for x in frames if "ml_collections" not in x.filename and x.filename != __file__]
    return f", {own[-1].filename}:{own[-1].lineno}" if own else ""


def _config_module(name: str) -> types.ModuleType:
    """Import a file of configs/ by name, or any Python file by path."""
    path = pathlib.Path(name)
    if path.suffix != ".py":
        if name not in config_names():
            close = difflib.get_close_matches(name, config_names(), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            known = ", ".join(config_names())
            raise ConfigError(f"unknown config {name!r}.{hint} Known: {known}, or a path to a .py")
        return importlib.import_module(f"xlmjax.configs.{name}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"--config={name}: no such file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _saved_config(path: epath.Path) -> ConfigDict:
    """Return the config of a workdir; fields that it was written without have their defaults."""
    if not path.is_file():
        raise ConfigError(f"--config={path}: no such file; a run writes it into its --workdir")
    base = importlib.import_module("xlmjax.configs.base")
    saved = json.loads(path.read_text("utf-8"))["config"]
    config = base.get_config()
    with config.unlocked():
        # Sections whose entries have names of their own are the saved ones and nothing else.
        config.objectives = ConfigDict(
            {
                name: base.objective(**_tuples(fields))
                for name, fields in saved.pop("objectives").items()
            }
        )
        config.evals = ConfigDict(
            {name: _evaluator(_tuples(fields)) for name, fields in saved.pop("evals").items()}
        )
    config.update(_tuples(saved))
    for section in (config.objectives, config.evals):  # a config file may add to them
        section.unlock()
        for entry in section.values():
            entry.lock()
    return config


def _evaluator(fields: dict[str, Any]) -> ConfigDict:
    """Return an entry of `config.evals` with every field of its kind: of one of configs/base.py."""
    base = importlib.import_module("xlmjax.configs.base")
    make = getattr(base, fields["name"], None)  # a module of the user's may have registered others
    return make(**fields) if make else ConfigDict(fields)


def _tuples(value: Any) -> Any:
    """Return a value of a JSON file with tuples for its lists, as configs have them."""
    if isinstance(value, dict):
        return {name: _tuples(entry) for name, entry in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return field -> value of a nested config, the fields with dots."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= leaves(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def to_json(config: ConfigDict) -> str:
    """Return a config as indented JSON, tuples as lists."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True, default=str)


def apply_flat(config: ConfigDict, flat: dict[str, Any]) -> ConfigDict:
    """Return a copy of `config` with dotted fields replaced."""
    copy = config.copy_and_resolve_references()
    copy.update_from_flattened_dict(flat)
    return copy
