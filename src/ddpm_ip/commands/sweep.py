"""Trains and measures runs that differ in some keys and in the seed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ddpm_ip import options
from ddpm_ip.commands import table
from ddpm_ip.errors import ConfigError
from ddpm_ip.parser import Parser

if TYPE_CHECKING:
    from ddpm_ip.config import Config
    from ddpm_ip.data import DataConfig
    from ddpm_ip.sweep.plan import Asked
    from ddpm_ip.table.rows import TableOptions

N_SAMPLES = 50_000  # images a cell, as of `ddpm-ip table`
ONE_THING = (("--steps", "--evaluations"), ("--variance", "--sampler", "--rows"))  # rows and columns of the table
EXPOSED, EXPOSURE_STEPS = 10_000, 50


def arguments(p: argparse.ArgumentParser) -> None:
    options.add_config(
        p, ", as for `ddpm-ip train`; a sweep that is continued needs none, and what is not said is as before"
    )
    p.add_argument("-e", "--exp_dir", type=Path, required=True, metavar="SWEEP_DIR", help="folder of the sweep")
    p.add_argument(
        "--over",
        nargs="+",
        action="extend",
        metavar="KEY=VALUE,VALUE...",
        help="a key of the configuration and the values that it takes, as in perturbation.gamma=0,0.1,0.15; of several "
        "keys, each value with each",
    )
    p.add_argument(
        "--seeds", type=int, nargs="+", metavar="S", help="of the training, each with every value (default: 0 1 2)"
    )
    p.add_argument(
        "--images",
        type=int,
        metavar="N",
        help="train each run with so many images, whatever its batch (default: train.n_steps steps)",
    )
    p.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs at once (default: one a GPU; without a GPU one after the other)",
    )
    exposure = p.add_mutually_exclusive_group()
    exposure.add_argument(
        "--exposure",
        type=int,
        metavar="N",
        help=f"images by which exposure bias is measured (default: {EXPOSED:,})",
    )
    exposure.add_argument("--no_exposure", action="store_true", help="do not measure it")
    p.add_argument(
        "--exposure_steps",
        type=int,
        metavar="K",
        help="steps of the sampling whose exposure bias is measured, which is the table's first row of --variance, "
        f"--sampler or --rows, else that of the config (default: {EXPOSURE_STEPS})",
    )
    table.add_measuring(p, n_samples=N_SAMPLES, seeds="--sampling_seeds")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    from ddpm_ip.sweep.jobs import gpus, places
    from ddpm_ip.sweep.program import Setup, sweep

    if args.jobs is not None and args.jobs < 1:
        raise ConfigError(f"--jobs {args.jobs}: at least one run at a time")
    wanted, found = asked(args, rest), gpus()
    at_once = min(args.jobs or max(1, len(found)), len(wanted.runs))
    return sweep(wanted, args.exp_dir, Setup(places(at_once, found), check_measuring))


def asked(args: argparse.Namespace, rest: list[str]) -> Asked:
    """What the options say, and where there is no configuration file what the sweep said before."""
    from ddpm_ip.config import parse_overrides, read_tree
    from ddpm_ip.sweep.plan import SEEDS, Asked, read_asked, read_over

    over = {} if args.over is None else read_over(args.over)
    words, options = table_words(args), parse_overrides(rest)
    if args.config is not None:
        tree, seeds = read_tree(args.config), args.seeds or SEEDS
        return Asked(tree, str(args.config), options, over, seeds, args.images, words, exposure_words(args, None))
    old = read_asked(args.exp_dir / "sweep.json")
    if old is None:
        raise ConfigError(
            f"{args.exp_dir} holds no sweep yet: give a configuration with -c, and what to try with --over"
        )
    return replace(
        old,
        options={**old.options, **options},
        over={**old.over, **over},
        seeds=args.seeds or old.seeds,
        images=args.images or old.images,
        table=table_as_before(old.table, words),
        exposure=exposure_words(args, old),
    )


def exposure_words(args: argparse.Namespace, old: Asked | None) -> list[str] | None:
    """What is measured of exposure bias, as words of ``ddpm-ip exposure``; None for nothing.

    Args:
        args: as parsed.
        old: the sweep that is continued; says what holds where nothing is said.
    """
    if args.no_exposure:
        return None
    if old is not None and args.exposure is None and args.exposure_steps is None:
        return None if old.exposure is None else list(old.exposure)
    rows = {"--variance": args.variance, "--sampler": args.sampler, "--rows": args.rows}
    first = next(([option, given[0]] for option, given in rows.items() if given), [])
    steps = EXPOSURE_STEPS if args.exposure_steps is None else args.exposure_steps
    return ["--n", str(EXPOSED if args.exposure is None else args.exposure), "--steps", str(steps), *first]


def table_words(args: argparse.Namespace) -> list[str]:
    """The options of the table that were given, as words of ``ddpm-ip table``."""
    words: list[str] = []
    for action in _table_parser()._actions:
        found = getattr(args, "sampling_seeds" if action.dest == "seeds" else action.dest, action.default)
        if found == action.default or action.dest == "help":
            continue
        values = [] if action.nargs == 0 else found if isinstance(found, list) else [found]
        words += [action.option_strings[0], *map(str, values)]
    return words


def table_as_before(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """The options of the table that were given before, and in their place those that are given now.

    Args:
        old, new: words of ``ddpm-ip table``. Options that say the same thing in several ways (``ONE_THING``) are
            replaced together.
    """
    given = _by_option(new)
    replaced = {other for option in given for other in next((one for one in ONE_THING if option in one), (option,))}
    kept = {option: words for option, words in _by_option(old).items() if option not in replaced}
    return [word for words in (*kept.values(), *given.values()) for word in words]


def _by_option(words: Sequence[str]) -> dict[str, list[str]]:
    """Words by the option that they begin with, or are a value of."""
    found: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            option = word
            found[option] = []
        found[option].append(word)
    return found


def _table_parser() -> argparse.ArgumentParser:
    parser = Parser(allow_abbrev=False)
    table.add_measuring(parser, n_samples=N_SAMPLES)
    return parser


def check_measuring(config: Config, wanted: Asked, trained: bool) -> int:
    """As :class:`ddpm_ip.sweep.program.Setup` needs it."""
    from ddpm_ip.exposure.program import ExposureOptions
    from ddpm_ip.table.program import check

    def read(words: Sequence[str]) -> tuple[Config, TableOptions, DataConfig | None]:
        return table.asked(_table_parser().parse_args(words), [], config.to_dict(), "the configuration")

    if wanted.exposure is not None:
        _, images, *row = wanted.exposure
        try:
            ExposureOptions(n=int(images))
            own, options, _ = read(row)
            options.slots(own)
        except ConfigError as error:
            raise ConfigError(f"exposure bias (--exposure {images} --exposure_steps {row[1]}): {error}") from None
    return check(*read(wanted.table), trained=trained)
