"""Measures speed."""

from __future__ import annotations

import argparse
from pathlib import Path

from ddpm_ip import options


def arguments(p: argparse.ArgumentParser) -> None:
    p.usage = (
        "%(prog)s [train] [sample] [data] [-c CONFIG] [--batch_size N ...] [--against SYSTEM ...] [--steps N] [-o FILE]"
    )
    options.add_config(p, default="the CIFAR-10 network with input perturbation")
    p.add_argument(
        "--batch_size",
        "--batch",
        type=int,
        nargs="+",
        metavar="N",
        help="images a step (default: 128 512 1024; on the CPU 16)",
    )
    p.add_argument(
        "--against",
        nargs="+",
        default=["plain", "diffusers"],
        metavar="SYSTEM",
        help="what else is measured: plain (train.fast off), diffusers, or none (default: plain diffusers)",
    )
    p.add_argument("--steps", type=int, metavar="N", help="timed training steps (default: 30; on the CPU 5)")
    p.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="JSON file, or a folder for bench-DEVICE-TIME.json (default: benchmarks/results if there, else .)",
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    from itertools import takewhile

    from ddpm_ip.config import from_dict, load, parse_overrides

    # Not a positional argument of argparse: some versions of it would take an override's value for a task.
    tasks = list(takewhile(lambda word: not word.startswith("-"), rest))
    overrides = parse_overrides(rest[len(tasks) :])
    default = {"data": {"name": "cifar10"}, "perturbation": {"name": "input"}}
    config = load(args.config, overrides) if args.config else from_dict(default, "the command line", overrides)
    from ddpm_ip.bench.run import OUT_OF_MEMORY, TASKS, BenchOptions, bench

    against = options.listed(" ".join(args.against))
    tasks += [word for word in against if word in TASKS]  # which stood behind the list
    against = [word for word in against if word not in (*TASKS, "none")]
    rows = bench(config, BenchOptions(tasks or TASKS, args.batch_size, against, args.steps, args.out))
    return int(any(row["error"] not in (None, OUT_OF_MEMORY) for row in rows))
