"""Completion of the command line by the shell's TAB: commands, options, configs and their fields.

    eval "$(register-python-argcomplete xlmjax)"

makes bash or zsh ask `xlmjax` itself, through argcomplete, what could stand at the cursor.
"""

import argparse
import os
import re
from collections.abc import Callable, Mapping

import argcomplete

from xlmjax import gin_bindings
from xlmjax.configuration import ConfigError, leaves, load_config


def complete(
    commands: Mapping[str, str], parser_of: Callable[[str], argparse.ArgumentParser]
) -> None:
    """Answer the shell that set `_ARGCOMPLETE`, and end the process.

    `commands` are names with their lines of help.
    """
    line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
    words = line.split()
    parser = argparse.ArgumentParser(prog="xlmjax")
    parser.add_argument("--version", action="store_true")
    choices = parser.add_subparsers()
    for name, summary in commands.items():
        options = [_of_command(parser_of(name), line)] if name in words[1:2] else []
        choices.add_parser(name, help=summary, parents=options, add_help=not options)
    argcomplete.autocomplete(parser)


def _of_command(parser: argparse.ArgumentParser, line: str) -> argparse.ArgumentParser:
    """Add gin's flags, and the fields of the config that the line names, once it names one."""
    for flag in (gin_bindings.FILE_FLAG, gin_bindings.LONG_BINDING_FLAG):
        parser.add_argument(flag, dest=flag, help="fields as gin spells them")
    word = line.split(" ")[-1]
    for prefix in filter(word.startswith, ("--config.", gin_bindings.BINDING_FLAG)):
        named = re.search(r"--config[= ](\S+)", line)
        try:
            config = load_config(named[1] if named else parser.get_default("config"))
        except ConfigError:
            config = load_config("base")
        for field, value in leaves(config.to_dict(), prefix).items():
            help_text = f"{value!r}".replace("%", "%%")
            parser.add_argument(f"{field}=", dest=field, help=help_text)
    return parser
