# SPDX-License-Identifier: Apache-2.0
"""Compiles the CPU kernels into a small shared library with the zig C compiler.

Run as a file or imported as a module; it needs nothing but Python and the `ziglang` package, so that it also
works inside a build environment where hiface and torch are not installed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = ("zbuffer", "surface", "shade", "outline", "canvas", "skin", "body", "maps", "pixels")
SOURCES = tuple(FOLDER / f"{name}.c" for name in NAMES)
HEADER = FOLDER / "kernels.h"

# Oldest processor each library must run on. x86-64-v2 is every PC since 2009 (SSE4.2); NEON is part of
# aarch64.
_CPU_FLAGS = {"x86_64": ["-mcpu=x86_64_v2"], "aarch64": ["-mcpu=generic"]}
_MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}
_SYSTEMS = {"linux": "linux-musl", "darwin": "macos.11.0", "windows": "windows-gnu"}


def source_hash() -> int:
    """Number that changes with the C sources; compiled in, so that a stale library is recognised."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in (*SOURCES, HEADER))).digest()
    return int.from_bytes(digest[:7], "little")


def host_target() -> str:
    """Zig target triple of the machine that runs this, for example "x86_64-linux-musl".

    Raises:
        RuntimeError: No library is built for this processor or system.
    """
    system, machine = platform.system().lower(), platform.machine().lower()
    if system not in _SYSTEMS or machine not in _MACHINES:
        raise RuntimeError(
            f"no target is known for {system} on {machine}; name one: build_library(..., target=...)"
        )
    return f"{_MACHINES[machine]}-{_SYSTEMS[system]}"


def library_name(target: str) -> str:
    """File name of the library for a target triple: `_kernels.so`, `.dylib` or `.dll`."""
    if "windows" in target:
        return "_kernels.dll"
    return "_kernels.dylib" if "macos" in target else "_kernels.so"


def compile_command(output: Path, target: str) -> list[str]:
    """Command line that builds the library.

    Args:
        output: File to write.
        target: Zig target triple.

    Returns:
        The arguments; the first is the running Python.

    Raises:
        RuntimeError: The `ziglang` package is not installed.
    """
    if importlib.util.find_spec("ziglang") is None:
        raise RuntimeError("the zig compiler is missing; install it with: pip install ziglang")
    # The library calls nothing, so it is linked without a C library and runs on any libc of its system.
    freestanding = ["-nostdlib"] if "linux" in target else []
    return [
        *[sys.executable, "-m", "ziglang", "cc", "-target", target],
        *_CPU_FLAGS.get(target.split("-", maxsplit=1)[0], []),
        *["-O3", "-std=c99", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden", "-g0", "-s"],
        *["-fno-sanitize=all", "-fno-stack-protector", "-Wall", "-Wextra", "-shared", *freestanding],
        f"-DHIFACE_SOURCE_HASH={source_hash()}",
        *["-o", str(output), *map(str, SOURCES)],
    ]


def build_library(out_dir: str | Path | None = None, target: str | None = None) -> Path:
    """Builds the CPU kernels.

    Args:
        out_dir: Folder to write to; next to the source if None.
        target: Zig target triple such as "aarch64-macos.11.0"; this machine if None.

    Returns:
        Path of the library.

    Raises:
        RuntimeError: The compiler is missing or failed.
    """
    target = target or host_target()
    folder = Path(out_dir) if out_dir is not None else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / library_name(target)
    partial = output.with_name(f"partial{output.name}")
    # Run beside the output, so that no module of the current folder hides one of Python's own.
    result = subprocess.run(
        compile_command(partial.resolve(), target), capture_output=True, text=True, check=False, cwd=folder
    )
    if result.returncode != 0:
        raise RuntimeError(f"compiling the kernels for {target} failed:\n{result.stderr}")
    partial.replace(output)
    for leftover in folder.glob("partial_kernels.*"):
        leftover.unlink()
    return output


if __name__ == "__main__":
    build_library(target=sys.argv[1] if len(sys.argv) > 1 else None)
