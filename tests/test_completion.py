"""What TAB offers in a real bash."""

import pathlib
import subprocess
import sys

import pytest

# As bash calls the function that it was told to call for `xlmjax`, with the cursor at the end.
ASK = """
eval "$(register-python-argcomplete xlmjax)"
COMP_LINE="$1" COMP_POINT=${#1} COMP_TYPE=9
read -r -a COMP_WORDS <<< "$1"
[[ "$1" == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
_python_argcomplete xlmjax "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def offered(line):
    path = f"{pathlib.Path(sys.executable).parent}:/usr/bin:/bin"
    command = ["bash", "-c", ASK, "bash", line]
    done = subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("xlmjax tr", {"train", "translate"}),
        ("xlmjax --v", {"--version"}),
        ("xlmjax train --gin_", {"--gin_file=", "--gin_bindings="}),
        ("xlmjax train --config=xlm15 --gin.train.num_s", {"--gin.train.num_steps="}),
        ("xlmjax fit --topo", {"--topology"}),
        ("xlmjax train --config=multi", {"multi30k_tiny"}),
        ("xlmjax train --config=xlm15 --config.train.num_s", {"--config.train.num_steps="}),
        ("xlmjax train --config.evals.", set()),  # of the default config, which has none
        ("xlmjax plan --config=demo --config.objectives.mlm.ra", {"--config.objectives.mlm.rate="}),
        ("xlmjax train --config=nosuch --config.optimizer.clip", {"--config.optimizer.clip_norm="}),
    ],
)  # fmt: skip
def test_what_could_stand_at_the_cursor_is_offered(line, expected):
    assert set(offered(line)) == expected
