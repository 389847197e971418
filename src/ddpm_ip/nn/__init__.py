"""Networks: one file each, with its configuration; :mod:`ddpm_ip.nn.network` says what a network is."""

from __future__ import annotations

from typing import Union

from ddpm_ip.nn.adm import ADMConfig
from ddpm_ip.nn.unet import UNetConfig

ModelConfig = Union[UNetConfig, ADMConfig]  # noqa: UP007  (the networks that `model` can be, told apart by `name`)

__all__ = ["ADMConfig", "ModelConfig", "UNetConfig"]
