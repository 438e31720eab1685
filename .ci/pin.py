"""Rewrite `[tool.uv] constraint-dependencies` of pyproject.toml from a fresh resolution.

    python .ci/pin.py

Run it after changing a direct dependency. Every transitive version of every group is pinned, with
its environment marker and without any index address.
"""

import pathlib
import re
import subprocess
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"constraint-dependencies = \[\n.*?^\]\n", re.DOTALL | re.MULTILINE)


def _resolve() -> list[str]:
    subprocess.run(["uv", "lock"], cwd=ROOT, check=True)
    export = ["uv", "export", "--all-groups", "--no-hashes", "--no-emit-project", "--no-annotate"]
    text = subprocess.run(export, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", "-e"))]
    # A local version (+cpu) exists only where its wheel lies on disk: pin the public part.
    return sorted(
        {
            re.sub(r"\+\w+", "", line).replace("python_full_version", "python_version")
            for line in lines
        },
        key=str.lower,
    )


def main() -> None:
    """Resolve without the old pins and write the new ones."""
    path = ROOT / "pyproject.toml"
    text = path.read_text()
    path.write_text(BLOCK.sub("constraint-dependencies = [\n]\n", text))
    pins = _resolve()
    block = "".join(
        f"  {pin!r},\n".replace("'", '"') if "'" not in pin else f'  "{pin}",\n' for pin in pins
    )
    path.write_text(BLOCK.sub(lambda _: f"constraint-dependencies = [\n{block}]\n", text))
    tomllib.loads(path.read_text())
    subprocess.run(["uv", "lock"], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
