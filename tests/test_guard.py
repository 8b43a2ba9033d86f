"""The shipped method is not worse than recorded, and the README shows what was measured."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def guard():
    return script(ROOT / "benchmarks" / "guard.py")


def test_the_shipped_method_is_not_worse_than_recorded(guard, tmp_path):
    before = guard.read_history()[-1]["small"]
    now = guard.figures(tmp_path, "hiface", guard.SMALL, 0)
    assert set(now) == set(before)
    assert not guard.worse(now, before), (now, before)


def test_a_worse_figure_is_named(guard):
    assert guard.worse({"a": 1.02, "b": 1.04, "c": 0.9}, {"a": 1.0, "b": 1.0, "c": 1.0}) == ["b"]
    assert guard.worse({"faces lost": 1.0}, {"faces lost": 0.0}) == ["faces lost"]
    assert guard.worse({"a": float("nan")}, {"a": 1.0, "gone": 1.0}) == ["a", "gone"]


def test_the_table_of_the_readme_is_what_was_measured():
    figures = script(ROOT / "tools" / "readme_figures.py")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert figures.written(readme) == readme


def test_figures_are_looked_up_by_path_and_by_entry(monkeypatch):
    figures = script(ROOT / "tools" / "readme_figures.py")
    content = {"a": {"b, c": [{"k": "x, y", "n": 1, "v": 0.5}, {"k": "z", "n": 1, "v": 2.0}]}}
    monkeypatch.setattr(figures, "results", lambda name: content)
    assert (
        figures.filled("{f#a/b, c/[k=x, y,n=1]/v:.2f} and {f#a/b, c/[k=z]/v:.0f|100} %") == "0.50 and 200 %"
    )
    with pytest.raises(KeyError, match="no entry"):
        figures.filled("{f#a/b, c/[k=w]/v}")
