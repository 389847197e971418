"""DDPM and DDPM-IP on handwritten digits, from nothing to a page, in two minutes."""

from __future__ import annotations

import argparse
from pathlib import Path

from ddpm_ip.errors import ConfigError

COUNTS = {
    "n_steps": (3000, "training steps of each run"),
    "n_samples": (1024, "samples behind each number"),
    "n_walks": (500, "walks behind each curve and calibration"),
}


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "folder", nargs="?", type=Path, default=Path("runs/demo"), metavar="DIR", help="folder (default: %(default)s)"
    )
    for name, (default, text) in COUNTS.items():
        p.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{text} (default: %(default)s)")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    if rest:
        raise ConfigError(f"unexpected argument {rest[0]!r:.80}")
    from ddpm_ip.demo.program import DemoOptions, demo

    return demo(args.folder, DemoOptions(**{name: getattr(args, name) for name in COUNTS}))
