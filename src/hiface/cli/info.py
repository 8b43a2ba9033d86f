# SPDX-License-Identifier: Apache-2.0
"""`hiface info`: versions, devices and packaged files, for bug reports."""

from __future__ import annotations

import platform

from rich.console import Console
from rich.table import Table


def info() -> int:
    """Prints versions, devices and packaged models, for bug reports.

    Returns:
        Exit code.
    """
    import torch

    import hiface
    from hiface.assets import list_assets, load_tensors_asset
    from hiface.devices import pick_device
    from hiface.render.kernels.cpu import kernel_name

    table = Table(show_header=False)
    device, reason = pick_device()
    table.add_row("hiface", hiface.__version__)
    table.add_row("python", f"{platform.python_version()} on {platform.platform()}")
    table.add_row("torch", torch.__version__)
    table.add_row("device", f"{device} ({reason})")
    table.add_row("z-buffer kernel", kernel_name())
    model = hiface.load_model("open").data
    table.add_row(
        "face model",
        f"{model.name} {model.version}: {model.n_vertices} vertices, {model.n_identity} identity, "
        f"{len(model.expression_names)} expressions, {len(model.albedo_names)} albedo ({model.licence})",
    )
    for name in list_assets("weights", ".safetensors"):
        meta = load_tensors_asset(name)[1]
        table.add_row(name, f"trained {meta.get('date', '?')}; {meta.get('scores', '')}")
    Console(emoji=False).print(table, markup=False)
    return 0
