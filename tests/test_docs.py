"""What the documents say: commands that parse, configs that load, links that lead somewhere."""

import ast
import json
import pathlib
import re
import shlex

import pytest

from xlmjax import cli
from xlmjax.configs import base
from xlmjax.configuration import load_config

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
ELSEWHERE = ("http:", "https:", "mailto:", "#")


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text):
    """Return the `xlmjax COMMAND ...` lines of a shell script, as lists of words."""
    lines = re.sub(r"\\\n", " ", text).splitlines()
    found, variables = [], {}
    for line in lines:
        for name, value in variables.items():
            line = re.sub(rf"\${name}\b", value, line)
        if assigned := re.fullmatch(r"(\w+)=(\S+|\".*\")", line.strip()):
            variables[assigned[1]] = assigned[2].strip('"')
        words = shlex.split(line, comments=True)
        for start, word in enumerate(words):
            before = words[max(0, start - 3) : start]
            if word == "xlmjax" and (not before or before[-1] in ("run", "|", "&&", "tpu")):
                rest = words[start + 1 :]
                ends = [i for i, w in enumerate(rest) if w in ("|", "<", ">", "&&", "2>")]
                found.append(rest[: min(ends, default=len(rest))])
    return found


def documented():
    """Yield (page, words) of every command of the documents and of the configs' docstrings."""
    for page in PAGES:
        for block in blocks(page.read_text("utf-8"), "bash"):
            yield from ((page, words) for words in commands(block))
    for path in CONFIGS:
        docstring = ast.get_docstring(ast.parse(path.read_text("utf-8")), clean=False) or ""
        indented = [line.strip() for line in docstring.splitlines() if line.startswith("  ")]
        yield from ((path, words) for words in commands("\n".join(indented)))


DOCUMENTED = [
    pytest.param(words, id=f"{page.name}-{' '.join(words)[:60]}") for page, words in documented()
]


def test_there_are_commands_to_check():
    assert len(DOCUMENTED) > 40


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with the files that documents call the reader's own."""
    text = (ROOT / "README.md").read_text("utf-8")
    [code] = [block for block in blocks(text, "python") if "get_config" in block]
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "mine.gin").write_text("train.num_steps = 1\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("words", DOCUMENTED)
def test_a_command_parses_and_its_config_loads(words, mine):
    name, *rest = words
    assert name in cli.COMMANDS
    args, overrides = cli.parser_of(name).parse_known_args(rest)
    config = args.config or f"{args.workdir}/config.json"
    if config.endswith(".json"):  # of a run, which has not been made here
        path = pathlib.Path(config)
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"config": base.get_config().to_dict()}))
    load_config(config, overrides)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    for link in links:
        if not link.startswith(ELSEWHERE) and link:
            assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_are_python(page):
    for block in blocks(page.read_text("utf-8"), "python"):
        compile(block, str(page), "exec")


def test_the_uv_of_the_documents_is_that_of_the_launcher():
    [pinned] = re.findall(r"\bUV=([\d.]+)", (ROOT / "launch_tpu.sh").read_text("utf-8"))
    assert re.findall(r"/uv/([\d.]+)/", (ROOT / "docs/tpu.md").read_text("utf-8")) == [pinned]
