"""Dependencies point down the list of layers only, and importing a layer brings no higher one along."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "hiface"
LAYERS = [
    {"errors"},
    {"types", "assets", "devices", "atomic", "optional", "colour"},
    {"geometry"},
    {"morphable"},
    {"render"},
    {"detail"},
    {"networks", "losses", "data", "synthetic"},
    {"training", "fitting", "transfer"},
    {"evaluation", "export", "animation"},
    {"result", "saving"},
    {"reconstructor"},
    {"methods", "tracking"},
    {"cli", "app"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def modules():
    return sorted(p for p in SRC.rglob("*.py") if p != SRC / "__init__.py")


def imported_packages(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module] if node.module != "hiface" else [f"hiface.{a.name}" for a in node.names]
        for name in names:
            if name and name.startswith("hiface."):
                yield name.split(".")[1], node.lineno


def test_every_package_has_a_layer():
    found = {p.relative_to(SRC).parts[0].removesuffix(".py") for p in modules()}
    assert found <= set(LEVEL), found - set(LEVEL)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SRC)))
def test_imports_point_down(path):
    own = LEVEL[path.relative_to(SRC).parts[0].removesuffix(".py")]
    for package, line in imported_packages(path):
        if package in ("__version__", "load_model"):
            continue
        assert LEVEL[package] <= own, f"{path.name}:{line} imports the higher layer {package}"


@pytest.mark.parametrize("level", range(len(LAYERS) - 1))
def test_importing_a_layer_brings_no_higher_one(level):
    names = [n for n in sorted(LAYERS[level]) if (SRC / n).is_dir() or (SRC / f"{n}.py").is_file()]
    higher = sorted(n for n, lvl in LEVEL.items() if lvl > level)
    code = "import sys\n" + "".join(f"import hiface.{n}\n" for n in names)
    code += "own = [m.split('.')[1] for m in sys.modules if m.startswith('hiface.')]\n"
    code += f"bad = sorted(set(own) & set({higher}))\n"
    code += "sys.exit(', '.join(bad) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
