"""What a run says about itself in Python: a few lines of text, and the numbers that training logged."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ddpm_ip.config import Config
from ddpm_ip.files import NUMBER, read_lines
from ddpm_ip.perturbation import label
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.run.row import row_label
from ddpm_ip.run.weights import Weights


def described(config: Config, folder: Path | None, weights: Weights | None) -> str:
    """A run in some lines: where it is, how far, on which images, which network, how it is trained and sampled."""
    d, t = config.diffusion, config.train
    step = 0 if weights is None else weights.step
    of = "not trained yet" if weights is None else f"step {'unknown' if step is None else f'{step:,}'}"
    size = " x ".join(map(str, config.shape))
    classes = "" if config.classes is None else f", {config.classes.count} classes"
    with torch.device("meta"):  # sizes alone
        parameters = sum(p.numel() for p in config.build_network().parameters())
    imported = None if weights is None or weights.own is None else weights.own.imported
    method = f"{label(config.perturbation)}, batches of {t.batch_size:,}, average {t.ema_decays[0]:g}"
    nowhere = "in no folder yet" if weights is None else "of weights alone, in no folder"
    lines = {
        "run": nowhere if folder is None else str(folder),
        "trained": f"{of} of {t.n_steps:,}" if weights is not None and step else of,
        "images": f"{config.data.name}, {size}{classes}",
        "network": f"{config.model.name}, {parameters:,} parameters, {d.objective}",
        "noise": f"{d.beta_schedule} schedule, {d.total_steps:,} times",
        "method": method if imported is None else f"of another program, format {imported['format']}",
        "sampled": f"{row_label(config.sampling.filled(d.var_type).row())}, {_steps(config)} unless said otherwise",
    }
    if weights is not None:
        lines["weights"] = f"{weights.sha256[:12]}, from {weights.origin}"
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items())


def _steps(config: Config) -> str:
    steps = config.sampling.steps
    return f"steps {steps}" if isinstance(steps, str) else f"{steps or config.diffusion.total_steps:,} steps"


def html(value: object) -> str:
    """What ``print`` shows of a value as a notebook shows it, in its columns."""
    return f"<pre>{escape(str(value))}</pre>"


def logged(folder: Path | None) -> dict[str, npt.NDArray[np.float64]]:
    """The numbers of all log lines of a run, float64 (lines,) each, by name; NaN where a line lacks one.

    Raises:
        UserError: the file cannot be read.
    """
    file = None if folder is None else RunFolder(folder).metrics
    rows = read_lines(file, {"step": NUMBER}).rows if file is not None and file.exists() else []
    names = dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, NUMBER))
    return {name: np.array([row.get(name, np.nan) for row in rows], dtype=np.float64) for name in names}
