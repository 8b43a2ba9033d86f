# SPDX-License-Identifier: Apache-2.0
"""Writes the README's table of figures from benchmarks: ``python tools/readme_figures.py``.

``benchmarks/figures.json`` lists the rows. A figure ``{file#path:format|factor}`` is the value at a path of
``benchmarks/results/file.json``; in a list, ``[key=value,key=value]`` is the first entry that has those
values. With ``--check`` nothing is written, and the exit code is 1 if the table is not up to date.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
START, END = "<!-- figures: tools/readme_figures.py -->", "<!-- end of figures -->"
_FIGURE = re.compile(r"\{([a-z_]+)#([^{}]+?)(?::([^{}|]*))?(?:\|([\d.]+))?\}")
_STEP = re.compile(r"\[[^\]]*\]|[^/]+")
_CONDITION = re.compile(r",(?=\w+=)")


@cache
def results(name: str) -> Any:
    """Content of a result."""
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def value_at(content: Any, path: str) -> Any:
    """The value at a path; raises KeyError that names what is missing."""
    for step in _STEP.findall(path):
        if step.startswith("["):
            wanted = dict(part.split("=", 1) for part in _CONDITION.split(step[1:-1]))
            fits = [row for row in content if all(str(row.get(k)) == v for k, v in wanted.items())]
            if not fits:
                raise KeyError(f"no entry {step} on the way {path}")
            content = fits[0]
        elif step not in content:
            raise KeyError(f"no {step!r} on the way {path}")
        else:
            content = content[step]
    return content


def filled(text: str) -> str:
    """The text with its figures."""

    def replaced(match: re.Match[str]) -> str:
        name, path, form, factor = match.groups()
        value = value_at(results(name), path)
        return format(value * float(factor) if factor else value, form or "")

    return _FIGURE.sub(replaced, text)


def table() -> str:
    """The table in Markdown."""
    rows = json.loads((ROOT / "benchmarks" / "figures.json").read_text(encoding="utf-8"))
    lines = ["| what | figure | target | command |", "| --- | --- | --- | --- |"]
    for row in rows:
        command = row["command"] if row["command"] == "same" else f"`{row['command']}`"
        lines.append(f"| {filled(row['what'])} | {filled(row['figure'])} | {row['target']} | {command} |")
    return "\n".join(lines)


def written(readme: str) -> str:
    """The README with the table between its marks."""
    before, rest = readme.split(START)
    after = rest.split(END)[1]
    return f"{before}{START}\n\n{table()}\n\n{END}{after}"


def main() -> None:
    """Writes or checks the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    new = written(old)
    if parser.parse_args().check:
        sys.exit(0 if new == old else "README.md is not up to date; run python tools/readme_figures.py")
    path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
