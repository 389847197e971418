"""The results table."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm_ip import options
from ddpm_ip.metric import INCEPTION, usual
from ddpm_ip.options import listed

if TYPE_CHECKING:
    from ddpm_ip.config import Config
    from ddpm_ip.data import DataConfig
    from ddpm_ip.table.rows import TableOptions


SEEDS = ("--seeds", "--seed")


def arguments(p: argparse.ArgumentParser) -> None:
    options.add_run(p)
    options.add_average(p, several=True)
    add_measuring(p, n_samples=50_000, seeds=SEEDS)
    p.add_argument(
        "--grid",
        action="store_true",
        help="also draw the numbers against the network evaluations: table/grid.png, .svg and .csv, and in the report",
    )


def add_measuring(
    p: argparse.ArgumentParser,
    n_samples: int,
    defaults: Mapping[str, str] = options.TABLE_DEFAULTS,
    seeds: Sequence[str] = ("--seeds",),
) -> None:
    """The options of a table but for the run; see :func:`ddpm_ip.options.add_many`.

    Args:
        p: gets them.
        n_samples: the default of ``--n_samples``.
        defaults: what else holds where nothing is said, for ``--help``.
        seeds: what the seeds of the sampling are called.
    """
    options.add_many(p, defaults)
    p.add_argument("--n_samples", type=int, default=n_samples, metavar="N", help="images a cell (default: %(default)s)")
    p.add_argument(
        *seeds,
        type=int,
        nargs="+",
        metavar="S",
        help="of the sampling; with several, mean and standard deviation (default: 0)",
    )
    p.add_argument(
        "--extractor",
        default="inception",
        metavar="NAME",
        help="whose features, as for `ddpm-ip evaluate`; FID is of inception alone (default: %(default)s)",
    )
    p.add_argument(
        "--metrics",
        nargs="+",
        metavar="M",
        help=f"as for `ddpm-ip evaluate` (default: {' '.join(usual(INCEPTION))} for inception, else "
        f"{' '.join(usual(''))})",
    )
    options.add_common(p)
    p.add_argument(
        "--keep_images", action="store_true", help="write the images, too (default: they go straight into the features)"
    )
    options.add_reference(p)


def run(args: argparse.Namespace, rest: list[str]) -> int:
    from ddpm_ip.run.builtin import taken

    args.exp_dir = taken(args.exp_dir)
    if len(_averages(args)) > 1:
        refuse_uncalibrated([args.exp_dir], args, rest)
    measure(args.exp_dir, args, rest)
    return 0


def refuse_uncalibrated(exp_dirs: Sequence[Path], args: argparse.Namespace, rest: list[str]) -> None:
    """Names the calibrations (of the correction auto) that any of several tables would miss, before the first is made.

    Raises:
        UserError: there are such; or a run, an option or a calibration is of no use.
    """
    from ddpm_ip.sample.calibrated import all_missing
    from ddpm_ip.table.calibrated import uncalibrated

    missing = []
    for exp_dir in exp_dirs:
        config, wanted, _ = _asked(exp_dir, args, rest)
        for ema in _averages(args):
            missing += uncalibrated(config, exp_dir, replace(wanted, ema=ema))
    if missing:
        raise all_missing(missing)


def _averages(args: argparse.Namespace) -> list[str | None]:
    return list(dict.fromkeys(getattr(args, "ema", None) or [None]))


def _asked(exp_dir: Path, args: argparse.Namespace, rest: list[str]) -> tuple[Config, TableOptions, DataConfig | None]:
    """What the options ask for, of a run and its first average; see :func:`asked`."""
    from ddpm_ip.run.identity import identity

    own = identity(exp_dir)
    return asked(args, rest, own.config, f"the configuration in {own.origin}")


def measure(exp_dir: Path, args: argparse.Namespace, rest: list[str]) -> None:
    """Makes the table of a run, and prints it."""
    from ddpm_ip.output import say
    from ddpm_ip.table.averages import compared, write
    from ddpm_ip.table.layout import as_text
    from ddpm_ip.table.program import table

    config, wanted, reference = _asked(exp_dir, args, rest)
    if args.grid:
        from ddpm_ip.report.lines import check, write_grid

        check()
    averages = _averages(args)
    # The first comes last: the table of the newest call, in the folder of all, is that of the newest average.
    grids = {ema: table(config, exp_dir, replace(wanted, ema=ema), reference) for ema in reversed(averages)}
    if os.environ.get("RANK", "0") != "0":
        return
    folder, grid = exp_dir / "table", grids[averages[0]]
    files = [f"{folder}/table.txt, .md, .csv, .json", *([write_grid(folder, grid)] if args.grid else [])]
    say("\n".join([as_text(grids[ema]) for ema in averages] + files))
    if len(averages) > 1:
        each = {str(ema): grids[ema] for ema in averages}
        say("\n".join([compared(each), *map(str, write(folder, each))]))


def asked(
    args: argparse.Namespace, rest: list[str], tree: Mapping[str, Any], origin: str
) -> tuple[Config, TableOptions, DataConfig | None]:
    """What options of :func:`add_measuring` ask for, of a model.

    Args:
        args, rest: as parsed.
        tree: the configuration of the model, plain values.
        origin: where it is from, for messages.

    Returns:
        The configuration, what to measure, and the real images where they are not those of the training.

    Raises:
        ConfigError: an option cannot be used.
    """
    from ddpm_ip.config import from_dict, parse_overrides
    from ddpm_ip.evaluate.program import reference_images
    from ddpm_ip.table.rows import TableOptions

    rows, common = options.many_overrides(args, parse_overrides(rest))
    config = from_dict(tree, origin, common)
    reference = reference_images(args.reference, config.shape)
    samplings = [from_dict(tree, origin, {**common, **row}).sampling for row in rows]
    metrics = None if args.metrics is None else listed(" ".join(args.metrics))
    named = ("steps", "evaluations", "n_samples", "seeds", "extractor", "keep_images")
    wanted = TableOptions(samplings, metrics=metrics, sampling=config.sampling, **{n: getattr(args, n) for n in named})
    return config, wanted, reference
