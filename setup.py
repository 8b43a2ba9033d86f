# SPDX-License-Identifier: Apache-2.0
"""Compiles the rendering kernels while the package is built; the rest is in pyproject.toml."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from types import ModuleType

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

KERNELS = Path("hiface", "render", "kernels")


def _builder() -> ModuleType:
    """`hiface.render.kernels.build`, loaded from its file: the package itself cannot be imported yet."""
    path = Path(__file__).parent / "src" / KERNELS / "build.py"
    spec = importlib.util.spec_from_file_location("hiface_kernel_build", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildWithKernels(build_py):
    """Copies the Python files, then compiles the library beside them (beside the sources if editable)."""

    def run(self) -> None:
        """Builds; without a compiler the package still works, with the slow rasterizer."""
        super().run()
        folder = None if self.editable_mode else Path(self.build_lib) / KERNELS
        try:
            _builder().build_library(folder)
        except RuntimeError as error:
            logging.warning("hiface is installed without its compiled rasterizer: %s", error)


class PlatformWheel(bdist_wheel):
    """The wheel holds a library for one platform, and works with any Python 3."""

    def finalize_options(self) -> None:
        """Marks the wheel as not pure."""
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self) -> tuple[str, str, str]:
        """Any Python 3, no Python ABI, this platform."""
        return "py3", "none", super().get_tag()[2]


class BinaryDistribution(Distribution):
    """Has compiled files, so that it is installed into the platform's folder."""

    def has_ext_modules(self) -> bool:
        """Always true."""
        return True


setup(
    cmdclass={"build_py": BuildWithKernels, "bdist_wheel": PlatformWheel},
    distclass=BinaryDistribution,
)
