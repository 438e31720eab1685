"""A stand-in for `gcloud` and for the workers of a TPU, by which tests drive launch_tpu.sh.

Installed as the program `gcloud`, it keeps its state in the folder CLOUD: `plan.json` says how the
cloud shall behave, `calls.jsonl` holds the arguments of every call, and `workers/NODE/N` is the
home of a worker, where commands sent by ssh are run for true, with `uv` and `hostname` of its own.
"""

import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

CLOUD = pathlib.Path(os.environ.get("CLOUD", "/nowhere"))

# Trains until $HOME/finish holds an exit code, of this run alone, or $CLOUD/finish one of all runs.
UV = """#!/usr/bin/env bash
[[ $1 != --version ]] || { echo "uv VERSION (x86_64-unknown-linux-gnu)" && exit; }
printf '%s\\0' "$@" >>"$HOME/uv-$1"
printf '%s\\n' "$PWD" >>"$HOME/uv-folder"
[[ $1 == run ]] || exit 0
trap 'exit 143' TERM
echo "loading"
echo "step 5/100: loss 1.0"
while [[ -d $HOME && ! -e $HOME/finish && ! -e $CLOUD/finish ]]; do sleep 0.02; done
code=$(cat "$HOME/finish" "$CLOUD/finish" 2>/dev/null | head -n 1)
rm -f "$HOME/finish"
exit "$code"
"""

# What a worker gets from astral.sh: an installer that makes its uv the version asked for.
CURL = """#!/usr/bin/env bash
echo "$@" >>"$HOME/curl"
version=${2#https://astral.sh/uv/} version=${version%/install.sh}
echo "sed -i 's/echo \\"uv [^ ]*/echo \\"uv $version/' \\"\\$UV_INSTALL_DIR/uv\\""
"""


def install(folder: pathlib.Path) -> None:
    """Write a program `gcloud` into a folder of PATH."""
    program = folder / "gcloud"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "{__file__}" "$@"\n')
    program.chmod(0o755)


def main(argv: list[str]) -> int:
    """Do what a call of gcloud would do."""
    with (CLOUD / "calls.jsonl").open("a") as file:
        file.write(json.dumps(argv) + "\n")
    names = [word for word in argv if not word.startswith("-")]
    flags = dict(word[2:].partition("=")[::2] for word in argv if word.startswith("--"))
    if names[:1] == ["storage"]:
        return _rsync(names[2], names[3])
    *_, noun, verb = names[:4]
    return {
        "queued-resources": {"create": _create, "describe": _describe, "delete": _delete},
        "tpu-vm": {"describe": _describe_node, "ssh": _ssh, "scp": _scp},
    }[noun][verb](names[4:], flags)


class _State:
    """`state.json` under a lock; what it holds is saved on leaving."""

    def __enter__(self) -> dict[str, Any]:
        self._lock = (CLOUD / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        path = CLOUD / "state.json"
        empty = {"resources": {}, "created": 0}
        self._content = json.loads(path.read_text()) if path.exists() else empty
        return self._content

    def __exit__(self, *_: object) -> None:
        (CLOUD / "state.json").write_text(json.dumps(self._content))
        self._lock.close()


def plan() -> dict[str, Any]:
    """Return how the cloud behaves: workers a node, states of creations, what fails, uv."""
    path = CLOUD / "plan.json"
    return {
        "workers": 2,
        "creations": [["ACTIVE"]],
        "refused_types": [],
        "node_states": {},
        "ssh_fails": {},
        "uv": "0.4.5",
        **(json.loads(path.read_text()) if path.exists() else {}),
    }


def homes(node: str) -> list[pathlib.Path]:
    """Return the homes of the workers of a node."""
    return [CLOUD / "workers" / node / str(index) for index in range(plan()["workers"])]


def _fail(text: str, code: int = 1) -> int:
    print(f"ERROR: (gcloud) {text}", file=sys.stderr)
    return code


def _create(names: list[str], flags: dict[str, str]) -> int:
    [name] = names
    with _State() as state:
        if name in state["resources"]:
            return _fail(f"ALREADY_EXISTS: {name}")
        if flags["accelerator-type"] in plan()["refused_types"]:
            return _fail("INVALID_ARGUMENT: accelerator type")
        creations = plan()["creations"]
        states = creations[min(state["created"], len(creations) - 1)]
        state["created"] += 1
        count = int(flags.get("node-count", 1))
        nodes = [f"{flags['node-prefix']}-{index}" for index in range(count)] if count > 1 else []
        state["resources"][name] = {"states": states, "nodes": nodes or [flags["node-id"]]}
        for node in state["resources"][name]["nodes"]:
            for index, home in enumerate(homes(node)):
                _furnish(home, index)
    return 0


def _furnish(home: pathlib.Path, index: int) -> None:
    programs = home / ".local" / "bin"
    programs.mkdir(parents=True)
    hostname = f"#!/bin/sh\necho t1v-n-1a2b-w-{index}\n"
    uv = UV.replace("VERSION", plan()["uv"])
    for name, text in (("uv", uv), ("curl", CURL), ("hostname", hostname)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)


def _describe(names: list[str], flags: dict[str, str]) -> int:
    with _State() as state:
        resource = state["resources"].get(names[0])
        if resource is None:
            return _fail(f"NOT_FOUND: Resource 'queuedResources/{names[0]}' was not found")
        now = resource["states"][0]
        resource["states"] = resource["states"][1:] or resource["states"]
    if now == "UNAVAILABLE":
        return _fail("UNAVAILABLE: The service is currently unavailable")
    print(now)
    return 0


def _delete(names: list[str], flags: dict[str, str]) -> int:
    if "force" not in flags or "quiet" not in flags:
        return _fail("FAILED_PRECONDITION: it has nodes, and nobody answers the question")
    with _State() as state:
        resource = state["resources"].pop(names[0], None)
    for node in resource["nodes"] if resource else []:
        shutil.rmtree(CLOUD / "workers" / node, ignore_errors=True)
    return 0 if resource else _fail("NOT_FOUND")


def _describe_node(names: list[str], flags: dict[str, str]) -> int:
    print(f"{plan()['node_states'].get(names[0], 'READY')}\t{plan()['workers']}")
    return 0


def _chosen(node: str, worker: str) -> list[pathlib.Path]:
    found = homes(node)
    return found if worker == "all" else [found[int(worker)]]


def _ssh(names: list[str], flags: dict[str, str]) -> int:
    [node] = names
    worst = 0
    for home in _chosen(node, flags["worker"]):
        place = f"{node}/{home.name}"
        if place in plan()["ssh_fails"]:
            worst = plan()["ssh_fails"][place]
        elif home.is_dir():
            environment = {
                "HOME": str(home),
                "PATH": f"{home}/.local/bin:{os.environ['PATH']}",
                "CLOUD": str(CLOUD),
            }
            command = ["bash", "-c", flags.get("command", "echo shell")]
            done = subprocess.run(command, cwd=home, env=environment, check=False)
            worst = worst or done.returncode
        else:
            worst = 255
        if worst:
            print(f"##### Command execution on worker {home.name} failed", file=sys.stderr)
    return worst


def _scp(names: list[str], flags: dict[str, str]) -> int:
    node, _, target = names[1].partition(":")
    for home in _chosen(node, flags["worker"]):
        shutil.copy(names[0], home / target)
    return 0


def _rsync(source: str, target: str) -> int:
    shutil.copytree(CLOUD / source.removeprefix("gs://"), target, dirs_exist_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
