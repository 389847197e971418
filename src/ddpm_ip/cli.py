"""The command line ``ddpm-ip``, and the same programs for ``scripts/``.

Nothing heavy is imported before it is needed, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from ddpm_ip import __version__
from ddpm_ip.commands import (
    bench,
    calibrate,
    compare_samplers,
    config,
    data,
    demo,
    demo_ui,
    doctor,
    ema,
    evaluate,
    export,
    exposure,
    import_,
    report,
    reproduce,
    sample,
    sweep,
    table,
    times,
    train,
)
from ddpm_ip.cores import threads
from ddpm_ip.errors import ConfigError
from ddpm_ip.parser import Parser
from ddpm_ip.signals import PREEMPTION, handled

_OVERRIDES = (
    "--key value overrides any item of the config by its dotted path, as in --perturbation.gamma 0.15; "
    "`ddpm-ip config --keys` lists them all"
)


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
    return None if command in ("config", "demo", "demo-ui", "ema", "evaluate", "report") else _OVERRIDES


def _run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if "_ARGCOMPLETE" in os.environ:
        from ddpm_ip.completion import answer

        answer(parser)
    # Before torch is loaded: on the CPU, threads that wait soon sleep instead of spinning on, or any other busy program
    # makes a small network crawl.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if "OMP_NUM_THREADS" in os.environ:  # before NumPy reads it: a launcher's own 1 would leave distances one core
        os.environ["OMP_NUM_THREADS"] = str(threads())
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


_Command = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace, list[str]], int]]
_COMMANDS: dict[str, _Command] = {
    "demo": (
        "Trains, samples and judges DDPM and DDPM-IP on the digits of the package: a page in two minutes on two cores.",
        demo.arguments,
        demo.run,
    ),
    "train": ("Trains a model: DDPM, or DDPM-IP with perturbation.name input.", train.arguments, train.run),
    "sample": ("Makes images from trained weights; an interrupted call continues.", sample.arguments, sample.run),
    "evaluate": ("Measures how far samples are from real images: FID and its kin.", evaluate.arguments, evaluate.run),
    "data": ("Looks at a data set.", data.arguments, data.run),
    "config": ("Lists and prints the presets, and every key of a configuration.", config.arguments, config.run),
    "table": (
        "Measures a run under samplers, corrections and numbers of steps: the results table.",
        table.arguments,
        table.run,
    ),
    "sweep": (
        "Trains and measures runs that differ in some keys and in the seed; a call that was ended continues.",
        sweep.arguments,
        sweep.run,
    ),
    "reproduce": (
        "Makes a published table again: trains, samples, measures, and compares; a call that was ended continues.",
        reproduce.arguments,
        reproduce.run,
    ),
    "compare-samplers": (
        "Draws how far the images of every sampler are from real ones, at 6, 10, 20 and 50 network evaluations.",
        compare_samplers.arguments,
        compare_samplers.run,
    ),
    "exposure": (
        "Measures exposure bias: how the states of sampling differ from real noisy images, by time.",
        exposure.arguments,
        exposure.run,
    ),
    "times": ("Finds the best times of a few steps, for `--spacing optimised`.", times.arguments, times.run),
    "calibrate": (
        "Fits the corrections that weights, a sampler and its times need, for `--corrections auto`.",
        calibrate.arguments,
        calibrate.run,
    ),
    "import": (
        "Makes a run of a network from elsewhere, so that every other command works on it.",
        import_.arguments,
        import_.run,
    ),
    "ema": ("Makes averages of any length of a run's snapshots, after training.", ema.arguments, ema.run),
    "doctor": ("Looks for what is missing or wrong here, and says how to fix it.", doctor.arguments, doctor.run),
    "export": ("Writes a trained network for diffusers, or as one file, with a card.", export.arguments, export.run),
    "report": ("Writes one HTML page that compares runs.", report.arguments, report.run),
    "demo-ui": (
        "Shows in a browser, on this machine alone, how images come about: two settings from the same noise.",
        demo_ui.arguments,
        demo_ui.run,
    ),
    "bench": ("Measures the speed of this machine, beside plain PyTorch and diffusers.", bench.arguments, bench.run),
}
