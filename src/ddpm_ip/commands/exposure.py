"""Measures exposure bias, and draws it."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_ip import options

if TYPE_CHECKING:
    from ddpm_ip.exposure.program import ExposureOptions, Kept

DEFAULTS = {
    "rows": "the sampler of sampling of the config, with the variance of diffusion.var_type",
    "spacing": "sampling.spacing of the config, uniform-linspace",
    "columns": "sampling.steps of the config, or 50",
}
MEASURE_HELP = (
    "of eps_norm (of the predicted noise, in sampling and on real states), delta (how far walks from real images "
    "drift), errors (of the predicted clean image after one and after all steps, from 10 times on: with 50 steps more "
    "than half of the work) and energy (by frequency band, and the time that states look like) (default: all)"
)


def arguments(p: argparse.ArgumentParser) -> None:
    options.add_weights(p, several=True)
    options.add_count(p, 10_000, "images; at most as many as there are real ones")
    p.add_argument("--measure", nargs="+", metavar="M", help=MEASURE_HELP)
    options.add_rows(p, DEFAULTS)
    options.add_seed(p, "of the noise, and of the choice of real images")
    options.add_common(p)
    options.add_reference(p)
    p.add_argument("--again", action="store_true", help="measure also what is there already")
    p.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="STEM",
        help="the figure, STEM.svg, .png and .csv (default: in the folder exposure next to the first weights)",
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    from ddpm_ip.config import parse_overrides
    from ddpm_ip.exposure.program import ExposureOptions
    from ddpm_ip.output import say
    from ddpm_ip.report.exposure import write_figures
    from ddpm_ip.run.log import setup
    from ddpm_ip.texts import add_once

    main = os.environ.get("RANK", "0") == "0"
    setup(None, main)
    measures: dict[str, Any] = {} if args.measure is None else {"measures": options.listed(" ".join(args.measure))}
    wanted = ExposureOptions(n=args.n, again=args.again, **measures)
    rows, common = options.many_overrides(args, parse_overrides(rest))
    if args.seed is not None:
        add_once(common, {"sampling.seed": args.seed})
    weights = list(dict.fromkeys(args.weights))
    out = None if args.out is None else _writable(args.out)
    kept = [(path, one) for path in weights for one in _of(path, args, [{**common, **row} for row in rows], wanted)]
    if not main:
        return 0
    exposures = [one.exposure for _, one in kept]
    if len(weights) > 1:
        named = dict(zip(weights, told_apart(weights), strict=True))
        exposures = [replace(one.exposure, label=f"{named[path]}: {one.exposure.label}") for path, one in kept]
    files = write_figures(exposures, out or _stem([one for _, one in kept]))
    say("\n\n".join([one.as_text() for one in exposures] + ["\n".join(map(str, [k.file for _, k in kept] + files))]))
    return 0


def _of(path: Path, args: argparse.Namespace, rows: Sequence[dict[str, object]], wanted: ExposureOptions) -> list[Kept]:
    """The exposures of some weights, for each row and number of steps."""
    from ddpm_ip.evaluate.program import reference_images
    from ddpm_ip.exposure.program import exposures, with_usual_steps
    from ddpm_ip.interop.find import find_weights
    from ddpm_ip.sample.program import configured

    weights = find_weights(path, args.config, rows[0], args.ema)
    configs = [
        configured(weights, path, args.config, {**row, **steps})
        for row in rows
        for steps in ([{}] if args.steps is None else [{"sampling.steps": count} for count in args.steps])
    ]
    samplings = [with_usual_steps(config.sampling, config) for config in configs]
    wanted = replace(wanted, reference=reference_images(args.reference, configs[0].shape))
    return exposures(configs[0], weights, list(dict.fromkeys(samplings)), wanted)


def told_apart(paths: Sequence[Path]) -> list[str]:
    """Short names of different paths: their last parts, as many as it takes for no two to be the same.

    Args:
        paths: of weights; ``.`` and ``..`` have the name of the folder that they are.
    """
    whole = [Path(os.path.abspath(path)) for path in paths]
    different = len(set(whole))
    for count in range(1, max(len(path.parts) for path in whole) + 1):
        names = ["/".join(path.parts[-count:]) for path in whole]
        if len(set(names)) == different:
            return names
    return list(map(str, whole))


def _writable(stem: Path) -> Path:
    """The same, once it is known that files can be written there.

    Raises:
        ConfigError: it is a folder, or lies in one that cannot be made or written.
    """
    from ddpm_ip.errors import ConfigError
    from ddpm_ip.files import make_folder

    if stem.is_dir():
        raise ConfigError(f"-o {stem}: that is a folder; give a name in it, as in {stem / 'curves'}")
    make_folder(stem.parent, ConfigError)
    if not os.access(stem.parent, os.W_OK):
        raise ConfigError(f"-o {stem}: {stem.parent} is read-only; choose a place that you may write to")
    return stem


def _stem(kept: Sequence[Kept]) -> Path:
    """Where the figure of one exposure is: next to its file; of several, under a name of all of them."""
    first = kept[0].file
    if len(kept) == 1:
        return first.with_suffix("")
    told = hashlib.sha256("\n".join(one.file.name for one in kept).encode()).hexdigest()
    return first.with_name(f"several-{told[:8]}")
