"""Trains a model, or continues a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from ddpm_ip import options


def arguments(p: argparse.ArgumentParser) -> None:
    options.add_config(p, ", such as ddpm_ip_cifar10; a run that is continued needs none")
    p.add_argument(
        "-e", "--exp_dir", type=Path, metavar="EXP_DIR", help="where results go (default: runs/exp-{current time})"
    )
    p.add_argument(
        "-r",
        "--resume",
        metavar="latest|best|PATH",
        help="continue the newest whole checkpoint of EXP_DIR, the best of train.eval, or the one at PATH, with the "
        "settings of that run",
    )
    p.add_argument(
        "--change",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY",
        help="with -r: items of the method that may differ from the run's from now on, as in --change "
        "perturbation.gamma --perturbation.gamma 0.15; others (--train.n_steps 900000) need no such word",
    )
    p.add_argument(
        "--init_from",
        "--init-from",
        type=Path,
        metavar="SOURCE",
        help="begin a new run with the averaged weights of a run or a checkpoint, with a .safetensors file, or with a "
        "network from elsewhere, as `ddpm-ip import` takes it; without "
        "-c with the settings of that run and the options given, as in --perturbation.name input",
    )
    p.add_argument("-ni", "--no_interaction", action="store_true", help="never ask; nothing here does")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    from ddpm_ip.config import parse_overrides
    from ddpm_ip.settings import Wanted
    from ddpm_ip.train.loop import train

    wanted = Wanted(args.config, parse_overrides(rest), tuple(args.change), init_from=args.init_from)
    outcome = train(wanted, args.exp_dir, args.resume)
    return 0 if outcome.signal is None else 128 + outcome.signal
