"""Times and corrections together: a sampling calibrated at the times that it has, and at the optimised ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ddpm_ip.config import Config
from ddpm_ip.errors import ConfigError
from ddpm_ip.exposure.calibrate import CalibrateOptions, Calibration, calibrate, with_auto
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.weights import Weights
from ddpm_ip.sample import calibrated
from ddpm_ip.sample.filled import times_name, together
from ddpm_ip.sample.optimised import TimesOptions, optimise
from ddpm_ip.sample.program import sampling_engine
from ddpm_ip.sampler import IPNDM
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.sampler.spacing import OPTIMISED


class Compared(NamedTuple):
    """Two calibrations of one number of steps.

    Attributes:
        given: at the times that were asked for.
        optimised: at those that ``ddpm-ip times`` finds.
        command: the command that samples at the better ones.
    """

    given: Calibration
    optimised: Calibration
    command: str

    @property
    def better(self) -> str:
        """Which times leave the smaller mismatch, in a sentence."""
        given, optimised = self.given.mismatch, self.optimised.mismatch
        if optimised < given:
            return f"Optimised times leave the smaller mismatch: {optimised:.3g} instead of {given:.3g}."
        return f"Keep the given times: their mismatch is {given:.3g}, and that of optimised ones {optimised:.3g}."

    def as_text(self) -> str:
        """Both calibrations, the better one, and its command."""
        given, optimised = self.given.as_text(), self.optimised.as_text()
        return f"{given}\n\nwith --spacing {OPTIMISED}:\n{optimised}\n\n{self.better}\n{self.command}"


def calibrate_with_times(config: Config, weights: Weights, sampling: Sampling, options: CalibrateOptions) -> Compared:
    """Calibrates at given and at optimised times; the latter are found first if need be. All processes call this
    together.

    The teacher of the times is that of ``ddpm-ip times``, iPNDM, with the corrections that the sampling has anyway.

    Args:
        config: of the model.
        weights: of it.
        sampling: with a plain number of steps, and not the spacing ``optimised``.
        options: how.

    Raises:
        UserError: anything that the user can put right.
    """
    steps = sampling.steps
    if not isinstance(steps, int) or sampling.spacing == OPTIMISED:
        raise ConfigError(
            "--times compares the times of a spacing with optimised ones: give --steps N, a plain number, and another "
            f"--spacing than {OPTIMISED}"
        )
    engine, other = sampling_engine(config, sampling), replace(sampling, spacing=OPTIMISED)
    store = Measured.of(weights.sha256, Path(weights.origin))
    if not together(engine, lambda: store.file(times_name(steps)).exists()):
        teacher = replace(
            calibrated.base(sampling), sampler=IPNDM(), steps=None, spacing="uniform-linspace", afs=False,
            denoise_to_zero=True,
        )  # fmt: skip
        optimise(config, weights, TimesOptions([steps], teacher, n=min(TimesOptions.n, options.n)))
    given, optimised = (calibrate(config, weights, one, options) for one in (sampling, other))
    best = sampling if given.mismatch <= optimised.mismatch else other
    return Compared(given, optimised, f"ddpm-ip sample --weights ... {calibrated.options(with_auto(best))}")
