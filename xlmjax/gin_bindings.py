"""Gin spellings of overrides: `--gin_file=FILE` and `--gin.section.field=VALUE`.

Values are gin's (Python literals and %MACROS). What a binding means is what
`--config.section.field=VALUE` means: the same fields, the same checks, the same errors. Nothing is
configurable but fields, so imports, scopes and @references are errors.
"""

import pathlib
import tokenize
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from gin import config_parser

FILE_FLAG, BINDING_FLAG = "--gin_file=", "--gin."
LONG_BINDING_FLAG = "--gin_bindings="  # gin's own flag, for which t5x has the short one


class _Macro(NamedTuple):
    name: str


class _Reader(config_parser.ParserDelegate):
    """What gin's parser asks for besides literals."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
        raise SyntaxError(f"@{scoped_configurable_name}")

    def macro(self, macro_name: str) -> _Macro:
        return _Macro(macro_name)


def expand(arguments: Sequence[str]) -> list[str]:
    """Return command-line arguments with gin's replaced by `--config.` ones, which come first.

    As with t5x, bindings of the command line win over those of files, later ones over earlier
    ones, and macros take their last value. Raises `ValueError` naming file and line.
    """
    arguments = list(_joined(arguments))
    files = [a.removeprefix(FILE_FLAG) for a in arguments if a.startswith(FILE_FLAG)]
    bindings = [a.removeprefix(BINDING_FLAG) for a in arguments if a.startswith(BINDING_FLAG)]
    others = [a for a in arguments if not a.startswith((FILE_FLAG, BINDING_FLAG))]
    fields: dict[str, Any] = {}
    for name in files:
        fields.update(_read_file(pathlib.Path(name), f"--gin_file={name}"))
    for text in bindings:
        fields.update(_parse(text, pathlib.Path(), f"--gin.{text}"))
    macros = {name: value for name, value in fields.items() if "." not in name}
    used: set[str] = set()
    expanded = [
        f"--config.{name}={_spelled(_resolve(value, macros, name, used))}"
        for name, value in fields.items()
        if name not in macros
    ]
    if unused := sorted({*macros} - used):
        raise ValueError(
            f"gin: {unused[0]} = {macros[unused[0]]!r} is a macro that no field uses; a field is "
            "spelled SECTION.FIELD"
        )
    return expanded + others


def _joined(arguments: Sequence[str]) -> Iterator[str]:
    """Yield arguments in one spelling: `--gin_file FILE` as `--gin_file=FILE`, and so on."""
    rest = iter(arguments)
    for argument in rest:
        if argument + "=" in (FILE_FLAG, LONG_BINDING_FLAG):
            value = next(rest, None)
            if value is None:
                raise ValueError(f"{argument} has no value; see docs/gin.md")
            argument += f"={value}"
        if argument.startswith(LONG_BINDING_FLAG):
            argument = BINDING_FLAG + argument.removeprefix(LONG_BINDING_FLAG)
        yield argument


def _read_file(
    path: pathlib.Path, where: str, above: tuple[pathlib.Path, ...] = ()
) -> dict[str, Any]:
    """Return the bindings of a file; those `above` are the files that include it."""
    if not path.is_file():
        raise ValueError(f"{where}: no such file {str(path)!r}")
    if path.resolve() in above:
        raise ValueError(f"{where}: {str(path)!r} includes itself")
    inside = (*above, path.resolve())
    return dict(_parse(path.read_text("utf-8"), path.parent, str(path), inside))


def _parse(
    text: str, folder: pathlib.Path, where: str, inside: tuple[pathlib.Path, ...] = ()
) -> Iterator[tuple[str, Any]]:
    """Yield (dotted field or macro, value); includes are looked for beside the file, then here."""
    try:
        for statement in config_parser.ConfigParser(text, _Reader()):
            line = f"{where}:{statement.location.line_num}"
            match statement:
                case config_parser.BindingStatement(scope, selector, argument, value):
                    if scope:
                        raise ValueError(f"{line}: {scope}/{selector}: fields have no scopes")
                    yield ".".join(filter(None, (selector, argument))), value
                case config_parser.IncludeStatement(filename):
                    beside = folder / filename
                    yield from _read_file(
                        beside if beside.is_file() else pathlib.Path(filename), line, inside
                    ).items()
                case config_parser.ImportStatement(module):
                    raise ValueError(
                        f"{line}: import {module}: nothing needs importing, the fields are those "
                        "of configs/base.py; remove the line"
                    )
    except (SyntaxError, tokenize.TokenError) as error:
        number = error.lineno if isinstance(error, SyntaxError) else error.args[1][0]
        raise ValueError(
            f"{where}:{number or 1}: not gin; write SECTION.FIELD = VALUE, where VALUE is a "
            "Python literal or a %MACRO and text has quotes"
        ) from None


def _resolve(
    value: Any, macros: dict[str, Any], name: str, used: set[str], above: tuple[str, ...] = ()
) -> Any:
    """Return a value without macros, which are entered in `used`, and with lists as tuples.

    The macros `above` are those in whose value it stands.
    """
    match value:
        case _Macro(macro):
            if macro not in macros:
                known = ", ".join(macros) or "none"
                raise ValueError(f"{name} = %{macro}: no such macro; defined: {known}")
            if macro in above:
                raise ValueError(f"{name} = %{above[0]}: the macro {macro} is made of itself")
            used.add(macro)
            return _resolve(macros[macro], macros, name, used, (*above, macro))
        case list() | tuple():
            return tuple(_resolve(item, macros, name, used, above) for item in value)
    return value


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
