"""Makes a published table again."""

from __future__ import annotations

import argparse
from pathlib import Path

from ddpm_ip.errors import ConfigError


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "what",
        choices=("paper_table",),
        help="paper_table: DDPM and DDPM-IP on CIFAR-10, trained, sampled and measured beside the published FID and IS",
    )
    p.add_argument(
        "-e",
        "--exp_dir",
        type=Path,
        metavar="SWEEP_DIR",
        help="folder of the runs (default: runs/paper_table; with --smoke runs/paper_table-smoke)",
    )
    p.add_argument(
        "--show", action="store_true", help="print the commands of the parts, a shell script, and do nothing else"
    )
    p.add_argument(
        "--smoke",
        action="store_true",
        help="the same in a minute, with tiny networks on the digits and pixels for features: a rehearsal",
    )
    p.add_argument("--jobs", type=int, metavar="N", help="runs at once (default: one a GPU; without a GPU one)")
    p.add_argument("--steps", type=int, nargs="+", metavar="K", help="columns of the table (default: 1000 100 50 10)")
    p.add_argument("--n_samples", type=int, metavar="N", help="images a cell (default: 50000, as published)")
    p.add_argument("--batch_size", type=int, metavar="N", help="images at once (default: what the memory holds)")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    from ddpm_ip.commands.sweep import check_measuring
    from ddpm_ip.config import parse_overrides
    from ddpm_ip.output import say
    from ddpm_ip.reproduce.program import reproduce
    from ddpm_ip.reproduce.recipes import RECIPES, SMOKE
    from ddpm_ip.reproduce.script import script
    from ddpm_ip.sweep.jobs import gpus, places
    from ddpm_ip.sweep.program import Setup

    if args.jobs is not None and args.jobs < 1:
        raise ConfigError(f"--jobs {args.jobs}: at least one run at a time")
    recipe = (SMOKE if args.smoke else RECIPES)[args.what]
    folder = args.exp_dir or Path("runs") / (f"{args.what}-smoke" if args.smoke else args.what)
    asked = recipe.asked(parse_overrides(rest), _of_table(args))
    if args.show:
        say(script(args.what, recipe, asked, folder, _words(args, folder, rest)))
        return 0
    found = gpus()
    at_once = min(args.jobs or max(1, len(found)), len(asked.runs))
    return reproduce(args.what, recipe, asked, folder, Setup(places(at_once, found), check_measuring))


def _of_table(args: argparse.Namespace) -> dict[str, list[str]]:
    """The options of the table that were given."""
    given = {"--steps": args.steps, "--n_samples": args.n_samples, "--batch_size": args.batch_size}
    words = {option: value if isinstance(value, list) else [value] for option, value in given.items() if value}
    return {option: list(map(str, values)) for option, values in words.items()}


def _words(args: argparse.Namespace, folder: Path, rest: list[str]) -> list[str]:
    """The call itself, without --show."""
    table = [word for option, values in _of_table(args).items() for word in (option, *values)]
    return ["reproduce", args.what, "-e", str(folder), *(["--smoke"] if args.smoke else []), *table, *rest]
