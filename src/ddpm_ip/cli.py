"""The command line ``ddpm-ip``, and the same programs for ``scripts/``.

Nothing heavy is imported before it is needed, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ddpm_ip import __version__, options
from ddpm_ip.errors import ConfigError
from ddpm_ip.metric import INCEPTION, METRICS, usual
from ddpm_ip.parser import Parser
from ddpm_ip.signals import PREEMPTION, handled

_OVERRIDES = "--key value overrides any item of the config by its dotted path, as in --perturbation.gamma 0.15"


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``ddpm-ip``; returns the exit code."""
    parser = Parser(
        prog="ddpm-ip",
        description="Diffusion models with input perturbation: train, sample, judge.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ddpm-ip {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, arguments, _) in _COMMANDS.items():
        arguments(commands.add_parser(name, help=text, description=text, epilog=_epilog(name), allow_abbrev=False))
    return _run(parser, argv)


def script(command: str) -> int:
    """One command as a program of its own, for ``scripts/`` under ``accelerate-launch``."""
    text, arguments, _ = _COMMANDS[command]
    parser = Parser(description=text, epilog=_epilog(command), allow_abbrev=False)
    parser.set_defaults(command=command)
    arguments(parser)
    return _run(parser, None)


def _epilog(command: str) -> str | None:
    return None if command in ("evaluate", "report") else _OVERRIDES


def _run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    # Before torch is loaded: on the CPU, threads that wait soon sleep instead of spinning on, or any other busy program
    # makes a small network crawl.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        if any("\0" in word for word in argv):
            raise ConfigError("an argument holds a NUL character, which no name of a file and no value can have")
        args, rest = parser.parse_known_args(argv)
        with handled(PREEMPTION, lambda number, frame: sys.exit(128 + number)):  # which removes what is temporary
            code = _COMMANDS[args.command][2](args, rest)
        if "torch.distributed" in sys.modules:  # after an error not every process may get here
            from ddpm_ip.engine import stop_engine

            stop_engine()
        return code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        from ddpm_ip.output import complain, told

        found = told(error)
        if found is None:
            raise
        if os.environ.get("RANK", "0") == "0" or os.environ.get("DDPM_IP_TRACEBACK"):
            complain(str(found))
        if os.environ.get("DDPM_IP_TRACEBACK"):
            raise
        return found.exit_code
    finally:
        from ddpm_ip.output import flush

        flush()


def _train_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "-c",
        "--config",
        type=Path,
        metavar="CONFIG",
        help="YAML file, such as configs/ddpm_ip_cifar10.yaml; a run that is continued needs none",
    )
    p.add_argument(
        "-e", "--exp_dir", type=Path, metavar="EXP_DIR", help="where results go; default runs/exp-{current time}"
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
        default=[],
        metavar="KEY",
        help="with -r: items of the method that may differ from the run's from now on, as in --change "
        "perturbation.gamma --perturbation.gamma 0.15; others (--train.n_steps 900000) need no such word",
    )
    p.add_argument("-ni", "--no_interaction", action="store_true", help="never ask; nothing here does")


def _train(args: argparse.Namespace, rest: list[str]) -> int:
    from ddpm_ip.config import parse_overrides
    from ddpm_ip.settings import Wanted
    from ddpm_ip.train.loop import train

    wanted = Wanted(args.config, parse_overrides(rest), tuple(args.change))
    outcome = train(wanted, args.exp_dir, args.resume)
    return 0 if outcome.signal is None else 128 + outcome.signal


def _sample_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "-c", "--config", type=Path, metavar="CONFIG", help="YAML file; by default the settings of the run in --weights"
    )
    p.add_argument(
        "--weights",
        type=Path,
        required=True,
        help="folder of a run (its newest EMA), a checkpoint, or a .safetensors file",
    )
    p.add_argument("--n_samples", type=int, required=True, metavar="N", help="how many images")
    p.add_argument("--save_dir", type=Path, required=True, help="folder for PNG files, or a file that ends in .npz")
    options.add_single(p)
    options.add_common(p)
    p.add_argument(
        "--mode",
        default="sample",
        choices=("sample", "denoise", "progressive"),
        help="finished images; or, for each, a strip of its noisy states, or of the clean image predicted on the way",
    )
    p.add_argument(
        "--n_denoise", type=int, default=20, metavar="N", help="pictures in a strip of --mode denoise (default: 20)"
    )
    p.add_argument(
        "--n_progressive", type=int, default=20, metavar="N", help="the same for --mode progressive (default: 20)"
    )


def _sample(args: argparse.Namespace, rest: list[str]) -> int:
    from ddpm_ip.config import parse_overrides
    from ddpm_ip.run.log import setup
    from ddpm_ip.run.weights import find_weights
    from ddpm_ip.sample.program import SampleOptions, configured, sample

    setup(None, os.environ.get("RANK", "0") == "0")
    weights = find_weights(args.weights)
    overrides = options.single_overrides(args, parse_overrides(rest))
    config = configured(weights, args.weights, args.config, overrides)
    wanted = {name: getattr(args, name) for name in ("n_samples", "mode", "n_denoise", "n_progressive")}
    sample(config, weights, args.save_dir, SampleOptions(sampling=config.sampling, **wanted))
    return 0


def _evaluate_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "samples", type=Path, metavar="SAMPLES", help="folder of PNG files, .npz or .npy of uint8 images, or Parquet"
    )
    p.add_argument(
        "--reference",
        required=True,
        metavar="DATA",
        help="real images: cifar10-train, cifar10-test, mnist-train, mnist-test, digits; a folder, .npz, Parquet; or a "
        "config file, for its data section",
    )
    p.add_argument("--reference_root", metavar="DIR", help="where the files of a named reference lie")
    p.add_argument(
        "--metrics",
        metavar="LIST",
        help=f"of {_metric_names()}, with commas (default: {','.join(usual(INCEPTION))}; if not Inception "
        f"{','.join(usual(''))})",
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
        "--out",
        type=Path,
        metavar="FILE.json",
        help="numbers and protocol are added to it (default: evaluation.json in the folder SAMPLES, or beside a file)",
    )


def _evaluate(args: argparse.Namespace, rest: list[str]) -> int:
    if rest:
        raise ConfigError(f"unexpected argument {rest[0]!r:.80}")
    from ddpm_ip.evaluate.program import EvaluateOptions, evaluate_files

    metrics = None if args.metrics is None else _names(args.metrics)
    names = ("reference", "reference_root", "extractor", "out", "batch_size", "n_samples")
    evaluate_files(args.samples, EvaluateOptions(metrics=metrics, **{name: getattr(args, name) for name in names}))
    return 0


def _metric_names() -> str:
    """``fid (FID), ..., prc (precision, recall)``."""
    return ", ".join(f"{m.name} ({', '.join(v.inception for v in m.values)})" for m in METRICS.values())


def _names(text: str) -> list[str]:
    """Of a list with commas, spaces or both."""
    return text.replace(",", " ").split()


def _data_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "action", choices=("inspect",), help="inspect: count, sizes, statistics, a contact sheet, unusable files"
    )
    p.add_argument(
        "-c", "--config", metavar="CONFIG", help="YAML file whose data section is meant; or --data.name NAME ..."
    )
    p.add_argument(
        "-o", "--out", type=Path, default=Path("contact-sheet.png"), help="the contact sheet (default: %(default)s)"
    )
    p.add_argument("-n", type=int, default=100, help="images on it (default: %(default)s)")


def _data(args: argparse.Namespace, rest: list[str]) -> int:
    import dataclasses

    from ddpm_ip.config import from_dict, load, parse_overrides

    overrides = parse_overrides(rest)
    data = (load(args.config, overrides) if args.config else from_dict({}, "the command line", overrides)).data
    from ddpm_ip.data import Folder, Parquet
    from ddpm_ip.data.inspect import inspect
    from ddpm_ip.files import make_folder, refuse_special

    if isinstance(data, (Folder, Parquet)):
        data = dataclasses.replace(data, on_bad="skip")  # a report on all files, not a refusal

    from ddpm_ip.output import say

    refuse_special(args.out)  # now rather than after the work
    make_folder(args.out.parent)
    images = data.open()
    say(inspect(images, args.out, args.n))
    return 1 if images.bad else 0


def _report_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("runs", nargs="+", type=Path, metavar="EXP_DIR", help="folders of runs to compare")
    p.add_argument("-o", "--out", type=Path, default=Path("report.html"), help="the page (default: %(default)s)")
    p.add_argument("--title", help="its title")


def _report(args: argparse.Namespace, rest: list[str]) -> int:
    if rest:
        raise ConfigError(f"unexpected argument {rest[0]!r:.80}")
    from ddpm_ip.output import say
    from ddpm_ip.report.page import write_report

    say(str(write_report(args.runs, args.out, title=args.title)))
    return 0


def _bench_arguments(p: argparse.ArgumentParser) -> None:
    p.usage = (
        "%(prog)s [train] [sample] [data] [-c CONFIG] [--batch N ...] [--against SYSTEMS] [--steps N] [--out FILE]"
    )
    p.add_argument(
        "-c", "--config", metavar="CONFIG", help="YAML file; by default the CIFAR-10 network with input perturbation"
    )
    p.add_argument(
        "--batch", type=int, nargs="+", metavar="N", help="images a step (default: 128 512 1024; on the CPU 16)"
    )
    p.add_argument(
        "--against",
        default="plain,diffusers",
        metavar="SYSTEMS",
        help="what else is measured: plain (train.fast off), diffusers, or none (default: %(default)s)",
    )
    p.add_argument("--steps", type=int, metavar="N", help="timed training steps (default: 30; on the CPU 5)")
    p.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="JSON file, or a folder for bench-DEVICE-TIME.json (default: benchmarks/results if there, else .)",
    )


def _bench(args: argparse.Namespace, rest: list[str]) -> int:
    from itertools import takewhile

    from ddpm_ip.config import from_dict, load, parse_overrides

    # Not a positional argument of argparse: some versions of it would take an override's value for a task.
    tasks = list(takewhile(lambda word: not word.startswith("-"), rest))
    overrides = parse_overrides(rest[len(tasks) :])
    default = {"data": {"name": "cifar10"}, "perturbation": {"name": "input"}}
    config = load(args.config, overrides) if args.config else from_dict(default, "the command line", overrides)
    from ddpm_ip.bench.run import OUT_OF_MEMORY, TASKS, BenchOptions, bench

    against = () if args.against == "none" else args.against.split(",")
    rows = bench(config, BenchOptions(tasks or TASKS, args.batch, against, args.steps, args.out))
    return int(any(row["error"] not in (None, OUT_OF_MEMORY) for row in rows))


def _table_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("-e", "--exp_dir", type=Path, required=True, metavar="EXP_DIR", help="folder of a run")
    options.add_many(p)
    p.add_argument("--n_samples", type=int, default=50_000, metavar="N", help="images a cell (default: %(default)s)")
    p.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        metavar="S",
        help="of the sampling; with several, mean and standard deviation (default: 0)",
    )
    p.add_argument(
        "--extractor",
        default="inception",
        help="of the features, as for `ddpm-ip evaluate`; FID is of inception alone (default: %(default)s)",
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
    p.add_argument(
        "--reference",
        metavar="CONFIG",
        help="YAML file whose data section is compared with (default: the run's own training images)",
    )


def _table(args: argparse.Namespace, rest: list[str]) -> int:
    from ddpm_ip.config import from_dict, load, parse_overrides
    from ddpm_ip.run.identity import identity

    own = identity(args.exp_dir)
    origin = f"the configuration in {own.origin}"
    overrides = options.common_overrides(args, parse_overrides(rest))
    config = from_dict(own.config, origin, overrides)
    reference = load(args.reference).data if args.reference else None
    from ddpm_ip.output import say
    from ddpm_ip.table.layout import as_text
    from ddpm_ip.table.program import TableOptions, table

    rows = options.variances_as_samplers(args.variance, args.sampler)
    samplers = (
        None
        if rows is None
        else [
            from_dict(own.config, origin, {**overrides, **options.sampler_overrides(row)}).sampling.sampler
            for row in rows
        ]
    )
    metrics = None if args.metrics is None else _names(" ".join(args.metrics))
    named = {name: getattr(args, name) for name in ("steps", "n_samples", "seeds", "extractor", "keep_images")}
    wanted = TableOptions(samplers, metrics=metrics, sampling=config.sampling, **named)
    grid = table(config, args.exp_dir, wanted, reference)
    if os.environ.get("RANK", "0") == "0":
        say(f"{as_text(grid)}\n{args.exp_dir / 'table'}/table.txt, .md, .csv, .json")
    return 0


def _doctor_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("-c", "--config", metavar="CONFIG", help="YAML file that is looked at, too: its data, its average")
    p.add_argument(
        "-e", "--exp_dir", type=Path, metavar="EXP_DIR", help="folder of a run that is looked at, too: its checkpoints"
    )
    p.add_argument("--json", action="store_true", help="print the findings as JSON")


def _doctor(args: argparse.Namespace, rest: list[str]) -> int:
    from ddpm_ip.config import parse_overrides

    overrides = parse_overrides(rest)
    if overrides and not (args.config or args.exp_dir):
        raise ConfigError(f"--{next(iter(overrides))} overrides an item of a config: name the config with -c, or -e")
    from ddpm_ip.doctor import as_json, as_text, doctor
    from ddpm_ip.output import say

    findings = doctor(args.config, overrides, args.exp_dir)
    say(as_json(findings) if args.json else as_text(findings))
    return int(any(finding.level == "problem" for finding in findings))


_Command = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace, list[str]], int]]
_COMMANDS: dict[str, _Command] = {
    "train": ("Trains a model: DDPM, or DDPM-IP with perturbation.name input.", _train_arguments, _train),
    "sample": ("Makes images from trained weights; an interrupted call continues.", _sample_arguments, _sample),
    "evaluate": ("Measures how far samples are from real images: FID and its kin.", _evaluate_arguments, _evaluate),
    "data": ("Looks at a data set.", _data_arguments, _data),
    "table": ("Measures a run under every variance and number of steps: the results table.", _table_arguments, _table),
    "doctor": ("Looks for what is missing or wrong here, and says how to fix it.", _doctor_arguments, _doctor),
    "report": ("Writes one HTML page that compares runs.", _report_arguments, _report),
    "bench": ("Measures the speed of this machine, beside plain PyTorch and diffusers.", _bench_arguments, _bench),
}
