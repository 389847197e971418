"""Measures samples."""

from __future__ import annotations

import argparse
from pathlib import Path

from ddpm_ip import options
from ddpm_ip.errors import ConfigError
from ddpm_ip.metric import INCEPTION, METRICS, usual
from ddpm_ip.options import listed


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "samples",
        nargs="?",
        type=Path,
        metavar="SAMPLES",
        help="folder of PNG files, .npz or .npy of uint8 images, or Parquet",
    )
    options.add_reference(p, default=None)
    p.add_argument("--reference_root", metavar="DIR", help="where the files of a named reference lie")
    p.add_argument(
        "--metrics",
        nargs="+",
        metavar="M",
        help=f"of {_metric_names()} (default: {' '.join(usual(INCEPTION))} for inception, else {' '.join(usual(''))})",
    )
    p.add_argument(
        "--extractor",
        default="inception",
        metavar="NAME",
        help="whose features: inception, pixels, dinov2-vit-s-14, -b-14, -l-14 or -g-14, one that an installed package "
        "offers, or your own as package.module:object (default: %(default)s)",
    )
    p.add_argument(
        "--n_samples", type=int, metavar="N", help="take the first N samples; fewer are refused (default: all)"
    )
    p.add_argument("--batch_size", type=int, metavar="N", help="images at once (default: 256; on a CPU 32)")
    p.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="a JSON file, to which numbers and protocol are added (default: evaluation.json in the folder "
        "SAMPLES, or next to a file)",
    )


def run(args: argparse.Namespace, rest: list[str]) -> int:
    if rest:
        raise ConfigError(f"unexpected argument {rest[0]!r:.80}")
    words = [] if args.metrics is None else listed(" ".join(args.metrics))
    if args.samples is None and len(words) > 1 and words[-1] not in METRICS:  # they stood behind the list
        args.samples = Path(args.metrics.pop())
        words = listed(" ".join(args.metrics))
    if args.samples is None:
        raise ConfigError("which samples? Give a folder of PNG files, an .npz or .npy file, or Parquet")
    from ddpm_ip.evaluate.program import EvaluateOptions, evaluate_files

    metrics = None if args.metrics is None else words
    names = ("reference", "reference_root", "extractor", "out", "batch_size", "n_samples")
    evaluate_files(args.samples, EvaluateOptions(metrics=metrics, **{name: getattr(args, name) for name in names}))
    return 0


def _metric_names() -> str:
    """``fid (FID), ..., prc (precision, recall)``."""
    return ", ".join(f"{m.name} ({', '.join(v.inception for v in m.values)})" for m in METRICS.values())
