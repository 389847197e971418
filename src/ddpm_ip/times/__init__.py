"""Where training takes its times from: a file a method; :mod:`ddpm_ip.times.base` says what one has to do."""

from __future__ import annotations

from ddpm_ip.times.base import Observer, Table, TimeSampler
from ddpm_ip.times.lognormal import Lognormal
from ddpm_ip.times.loss_second_moment import LossSecondMoment
from ddpm_ip.times.skewed import Skewed
from ddpm_ip.times.uniform import Uniform

TimesConfig = Uniform | LossSecondMoment | Lognormal | Skewed  # what `train.times` can be, told apart by `name`

__all__ = ["Lognormal", "LossSecondMoment", "Observer", "Skewed", "Table", "TimeSampler", "TimesConfig", "Uniform"]
