# SPDX-License-Identifier: Apache-2.0
"""Checks an installed hiface: size on disk, import time, compiled kernel, no compiler needed."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

IMPORT_CODE = "import time; s = time.perf_counter(); import hiface; {}; print(time.perf_counter() - s)"
KERNEL_CODE = "from hiface.render.kernels.cpu import kernel_name; print(kernel_name())"


def run(python: Path, code: str) -> str:
    """Output of a line of Python in the checked environment."""
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Prints the figures and exits with 1 if one is over its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, required=True)
    parser.add_argument("--max-gb", type=float, required=True)
    parser.add_argument("--max-import-s", type=float, required=True)
    args = parser.parse_args()
    python = args.venv / "bin" / "python"
    size_gb = sum(p.stat().st_size for p in args.venv.rglob("*") if p.is_file() and not p.is_symlink()) / 1e9
    bare_s = min(float(run(python, IMPORT_CODE.format("hiface.__version__"))) for _ in range(3))
    full_s = min(float(run(python, IMPORT_CODE.format("hiface.Reconstructor"))) for _ in range(3))
    kernel = run(python, KERNEL_CODE)
    print(f"install: {size_gb:.2f} GB on disk (limit {args.max_gb})")
    print(f"import hiface: {bare_s:.2f} s (limit {args.max_import_s}); with torch: {full_s:.2f} s")
    print(f"z-buffer kernel: {kernel}")
    if size_gb > args.max_gb or bare_s > args.max_import_s or "reference" in kernel:
        sys.exit("the install does not keep its limits")


if __name__ == "__main__":
    main()
