"""Whether the calibrations of a table are there: looked up before the first of several tables is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ddpm_ip.config import Config
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.weights import find_weights
from ddpm_ip.sample.calibrated import NotCalibrated
from ddpm_ip.sample.filled import calibrated_alone
from ddpm_ip.sampler.correction import Auto
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.table.rows import TableOptions, without_weights


def uncalibrated(config: Config, run: Path, options: TableOptions) -> list[NotCalibrated]:
    """The calibrations that a table would miss, before anything is loaded for it; those of analytic variances, which
    may have to be measured first, are left to :func:`table`.

    Raises:
        UserError: there are no such weights, or a calibration is of no use.
    """
    found: list[NotCalibrated] = []
    rows = [row for row in options.rows or [options.sampling] if Auto() in row.corrections]
    if not rows:
        return found
    weights = find_weights(run, options.ema)
    store = Measured.of(weights.sha256, Path(weights.origin))

    def fill(sampling: Sampling) -> tuple[Sampling, str]:
        try:
            return calibrated_alone(sampling, config, store), ""
        except NotCalibrated as error:
            found.append(error)
            return without_weights(sampling)

    replace(options, rows=rows).slots(config, fill)
    return found
