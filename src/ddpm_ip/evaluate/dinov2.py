"""The place of :mod:`ddpm_ip.evaluate.extractors.dinov2` in version 0.1, for programs that import it from here."""

from ddpm_ip.evaluate.extractors.dinov2 import Dinov2

__all__ = ["Dinov2"]
