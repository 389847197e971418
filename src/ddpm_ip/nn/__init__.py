"""Networks: one file each, with its configuration; :mod:`ddpm_ip.nn.network` says what a network is."""

from __future__ import annotations

from ddpm_ip.nn.unet import UNetConfig

ModelConfig = UNetConfig  # the networks that `model` can be, told apart by `name`: A | B | ...

__all__ = ["ModelConfig", "UNetConfig"]
