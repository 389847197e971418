"""How much the squared error at each time counts: a file a method; :mod:`ddpm_ip.weighting.base` says what one does."""

from __future__ import annotations

from ddpm_ip.weighting.base import Weighting
from ddpm_ip.weighting.constant import Constant
from ddpm_ip.weighting.edm import EDM
from ddpm_ip.weighting.min_snr import MinSNR
from ddpm_ip.weighting.p2 import P2

WeightingConfig = Constant | MinSNR | P2 | EDM  # what `train.weighting` can be, told apart by `name`

__all__ = ["EDM", "P2", "Constant", "MinSNR", "Weighting", "WeightingConfig"]
