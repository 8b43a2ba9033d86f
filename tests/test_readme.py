"""The README says what is true: its help text is the command's, its Python runs, its links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from portrait import portrait

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)[number]


def test_help_is_current():
    code = "from hiface.cli.main import main; main(['reconstruct', '--help'])"
    env = os.environ | {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, timeout=60, check=True)
    lines = [line.rstrip() for line in done.stdout.decode().strip().splitlines()]
    assert block("text").strip().splitlines() == lines, "\n".join(lines)


def test_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(portrait()).save("portrait.jpg", quality=95)
    exec(compile(block("python"), "README.md", "exec"), {})
    assert (tmp_path / "smile.glb").read_bytes()[:4] == b"glTF"
    assert "tensor" in capsys.readouterr().out


def test_the_two_commands_are_make_targets():
    commands = block("sh").split("\n")[:-1]
    assert commands == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{c.split()[1]}:", makefile, re.MULTILINE) for c in commands)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_links_and_pictures_exist(page):
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    for target in targets:
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target
