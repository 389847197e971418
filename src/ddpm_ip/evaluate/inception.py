"""The place of :mod:`ddpm_ip.evaluate.extractors.inception` in version 0.1, for programs that import it from here."""

from ddpm_ip.evaluate.extractors.inception import Inception

__all__ = ["Inception"]
