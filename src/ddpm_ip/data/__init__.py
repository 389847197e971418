"""Images: where they come from, how they are decoded, and in which order they are seen.

Each source is a frozen dataclass that is its own configuration; ``open()`` gives an :class:`ImageSet`. The order is
:func:`ddpm_ip.data.order.order`, the report on a set :func:`ddpm_ip.data.inspect.inspect`.
"""

from __future__ import annotations

from typing import Union

from ddpm_ip.data.arrays import Digits, Npz
from ddpm_ip.data.cifar10 import Cifar10
from ddpm_ip.data.decode import BadImage
from ddpm_ip.data.folder import Folder
from ddpm_ip.data.imageset import ImageSet
from ddpm_ip.data.mnist import Mnist
from ddpm_ip.data.parquet import Parquet
from ddpm_ip.data.unknown import Unknown

DataConfig = Union[Digits, Cifar10, Mnist, Folder, Parquet, Npz, Unknown]  # noqa: UP007  (the variants, told apart by `name`)

__all__ = ["BadImage", "Cifar10", "DataConfig", "Digits", "Folder", "ImageSet", "Mnist", "Npz", "Parquet", "Unknown"]
