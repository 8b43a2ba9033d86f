# SPDX-License-Identifier: Apache-2.0
"""Torch devices by name."""

from __future__ import annotations

import torch

from hiface.errors import OptionError


def pick_device() -> tuple[torch.device, str]:
    """The device to use when none is named, with the reason in words."""
    if torch.cuda.is_available():
        return torch.device("cuda"), "a CUDA device is there"
    return torch.device("cpu"), "no CUDA device was found"


def check_device(name: str | torch.device) -> torch.device:
    """The device of a name such as "cpu" or "cuda:1".

    Raises:
        OptionError: There is no such device.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(f"the device {name} cannot be used ({reason}); leave it out or take cpu") from error
    return device
