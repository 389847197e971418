"""One page that compares runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from ddpm_ip import options
from ddpm_ip.errors import ConfigError


def arguments(p: argparse.ArgumentParser) -> None:
    options.add_runs(p, "folders of runs to compare")
    p.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="the page (default: %(default)s)",
    )
    p.add_argument("--title", metavar="TEXT", help="of the page (default: one that names the runs)")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    if rest:
        raise ConfigError(f"unexpected argument {rest[0]!r:.80}")
    from ddpm_ip.output import say
    from ddpm_ip.report.page import write_report
    from ddpm_ip.run.builtin import found

    say(str(write_report([found(run) for run in args.runs], args.out, title=args.title)))
    return 0
