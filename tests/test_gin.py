"""Gin spellings of overrides: the same fields, checks and errors as `--config.x.y=z`."""

import pytest

from xlmjax import cli
from xlmjax.configuration import ConfigError, load_config

FILE = """
# What a user of t5x would write.
STEPS = 7
include "model.gin"
train.num_steps = %STEPS
data.languages = ["en", "fr"]
objectives.mlm.rate = ((0, 0.2), (100, 0.3))
optimizer.name = "lion"
train:
  rows = 16
  length = 64
"""


@pytest.fixture
def gin_file(tmp_path):
    (tmp_path / "model.gin").write_text("model.embed_dim = 512\ntrain.num_steps = 1\n")
    (tmp_path / "run.gin").write_text(FILE)
    return tmp_path / "run.gin"


def test_a_file_with_a_macro_an_include_and_a_block(gin_file):
    config = load_config("base", [f"--gin_file={gin_file}"])
    assert config.train.num_steps == 7
    assert config.data.languages == ("en", "fr")
    assert config.objectives.mlm.rate == ((0, 0.2), (100, 0.3))
    assert config.optimizer.name == "lion"
    assert (config.train.rows, config.train.length, config.model.embed_dim) == (16, 64, 512)


def test_the_command_line_wins_over_files_and_plain_overrides_over_gin(gin_file):
    given = ["--config.train.rows=4", "--gin.STEPS=9", "--gin.train.length = 32"]
    config = load_config("base", [*given, f"--gin_file={gin_file}"])
    assert (config.train.num_steps, config.train.length, config.train.rows) == (9, 32, 4)


def test_the_flags_of_gin_itself_may_have_a_space_before_their_value(gin_file):
    given = ["--gin_file", str(gin_file), "--gin_bindings", "train.rows = 4"]
    config = load_config("base", [*given, "--gin_bindings=train.length = 32"])
    assert (config.train.num_steps, config.train.rows, config.train.length) == (7, 4, 32)


def test_both_spellings_give_one_config():
    plain = ["--config.data.mixing.alpha=0.5", "--config.data.verify=False"]
    gin = ["--gin.data.mixing.alpha=0.5", "--gin.data.verify=False"]
    assert load_config("demo", plain).to_dict() == load_config("demo", gin).to_dict()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--gin.train.num_step=4", 'Did you mean "num_steps"'),
        ("--gin.train.rows='many'", "many"),
        ("--gin.optimizer.name=lion", "text has quotes"),
        ("--gin.big/train.rows=4", "big/train: fields have no scopes"),
        ("--gin.train.rows=%ROWS", "train.rows = %ROWS: no such macro; defined: none"),
        ("--gin.train.rows=@rows()", "not gin"),
        ("--gin.train=4", "train = 4 is a macro that no field uses"),
        ("--gin_file=nowhere.gin", "no such file 'nowhere.gin'"),
        ("--gin_fil=x", "unknown argument '--gin_fil=x'"),
        ("--gin_file", "--gin_file has no value"),
        ("--gin_bindings", "--gin_bindings has no value"),
    ],
)
def test_wrong_bindings_are_refused_in_one_sentence(given, message, capsys):
    with pytest.raises(ConfigError) as error:
        load_config("base", [given])
    assert message in str(error.value)
    assert cli.main(["plan", "--config=base", given]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train.num_steps = (1", "not gin"),
        ("from t5x import utils", "run.gin:3: import t5x.utils: nothing needs importing"),
        ("train.rows 4", "run.gin:3: not gin"),
        ('include "missing.gin"', "run.gin:3: no such file 'missing.gin'"),
        ('include "run.gin"', "run.gin:3: '.*run.gin' includes itself"),
        ("A = %B\nB = (1, %A)\ntrain.rows = %A", "train.rows = %A: the macro A is made of itself"),
    ],
)
def test_errors_in_a_file_name_its_line(tmp_path, line, message):
    path = tmp_path / "run.gin"
    path.write_text(f"# a comment\ntrain.length = 8\n{line}\n")
    with pytest.raises(ConfigError, match=message):
        load_config("base", [f"--gin_file={path}"])
