"""How images are made, on the command line: options, published and new, as items of the section ``sampling``.

--sampler ddim,eta=0.5      sampling.sampler.name: ddim, sampling.sampler.eta: 0.5
--sampler.eta 0.5           sampling.sampler.eta: 0.5
--corrections a,x=1 b       sampling.corrections: [{name: a, x: 1}, {name: b}]
--corrections a,x=1+b       the same

A results table has several of each as rows, or rows written out with ``--rows``. How such texts are read: ``texts.py``.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddpm_ip.errors import ConfigError
from ddpm_ip.texts import BALANCED, VARIANCES, add_once, chain_overrides, corrections, row_overrides, sampler_overrides

SPACINGS = (
    "uniform (the same as uniform-leading), uniform-linspace, uniform-trailing, quad, logsnr (exponential), "
    "karras,rho=7, beta, optimised (by `ddpm-ip times`), or the times themselves, as in [999,500.5,0]"
)
SAMPLERS = (
    "ancestral", "ddim", "deis", "dpm_solver", "dpm_solver_sde", "dpm_solver_single", "er_sde", "euler", "heun",
    "ipndm", "ipndm_v", "restart", "sa_solver", "unipc",
)  # fmt: skip
CORRECTIONS = (
    "auto", "band_gains", "dcw", "dynamic_thresholding", "epsilon_scaling", "guidance", "ip_emulator", "time_shift",
    "tsr", "variance_normalisation",
)  # fmt: skip
TABLE_DEFAULTS = {
    "rows": "both fixed ones, or the learned one of a model that has it",
    "spacing": "sampling.spacing of the config, uniform-linspace",
    "columns": "1000 100 50 10",
}
SAMPLER_HELP = (
    f"{', '.join(SAMPLERS)} (docs/samplers.md; ddpm is ancestral), with its settings as in ddim,eta=0.5 or by "
    "--sampler.KEY VALUE (default: sampling.sampler of the config, ancestral)"
)


def add_config(p: argparse.ArgumentParser, text: str = "", default: str = "") -> None:
    """The configuration of a command.

    Args:
        p: gets it.
        text: what it is for, to follow "YAML file or preset".
        default: what holds without one.
    """
    p.add_argument(
        "-c",
        "--config",
        type=Path,
        metavar="CONFIG",
        help=f"YAML file, or a preset by its name as `ddpm-ip config` lists them{text}"
        + (f" (default: {default})" if default else ""),
    )


class _Place(argparse.Action):
    """What stands without an option. Where nothing does, what an option with the same meaning said is kept."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if values is not None:
            setattr(namespace, self.dest, values)


def add_run(p: argparse.ArgumentParser, text: str = "folder of a run", needed: bool = True) -> None:
    """The run that a command looks at: ``exp_dir``, by its place or with ``-e``."""
    given = p.add_mutually_exclusive_group(required=needed)
    given.add_argument("exp_dir", nargs="?", action=_Place, type=Path, metavar="EXP_DIR", help=text)
    given.add_argument("-e", "--exp_dir", type=Path, metavar="EXP_DIR", help="the same")


def add_runs(p: argparse.ArgumentParser, text: str) -> None:
    """The runs that a command looks at: ``runs``, by their place or with ``-e``."""
    given = p.add_mutually_exclusive_group(required=True)
    given.add_argument("runs", nargs="*", type=Path, default=argparse.SUPPRESS, metavar="EXP_DIR", help=text)
    given.add_argument("-e", "--exp_dir", dest="runs", nargs="+", type=Path, metavar="EXP_DIR", help="the same")


def add_weights(p: argparse.ArgumentParser, several: bool = False) -> None:
    """The weights that a command uses, by their place or with ``--weights``; and which average of them."""
    add_config(p, default="the settings of the run")
    given = p.add_mutually_exclusive_group(required=True)
    one: dict[str, Any] = {"nargs": "?", "action": _Place}
    many: dict[str, Any] = {"nargs": "*", "default": argparse.SUPPRESS}
    given.add_argument(
        "weights",
        **(many if several else one),
        type=Path,
        metavar="WEIGHTS",
        help="folder of a run (its newest EMA), a checkpoint, or a .safetensors file; digits, which come with the "
        "package; or a network from elsewhere, as `ddpm-ip import` takes it"
        + ("; several are lines of one figure" if several else ""),
    )
    extra: dict[str, Any] = {"nargs": "+", "action": "extend"} if several else {}
    given.add_argument("--weights", type=Path, metavar="WEIGHTS", help="the same", **extra)
    add_average(p)


def add_reference(p: argparse.ArgumentParser, default: str | None = "the run's own training images") -> None:
    """The real images that something is compared with; without a default they must be given."""
    p.add_argument(
        "--reference",
        required=default is None,
        metavar="DATA",
        help="real images: cifar10-train, cifar10-test, mnist-train, mnist-test, digits; a folder, .npz, Parquet; the "
        "folder of a run, for its training images; or a config file or preset, for its data section"
        + (f" (default: {default})" if default else ""),
    )


def add_count(p: argparse.ArgumentParser, default: int, text: str, old: str = "--n") -> None:
    """How many images, or walks, a command makes or takes: ``n``."""
    p.add_argument(
        "--n_samples", old, dest="n", type=int, default=default, metavar="N", help=f"{text} (default: %(default)s)"
    )


def add_average(p: argparse.ArgumentParser, several: bool = False) -> None:
    """Which of a run's averages is meant."""
    text = "a decay of train.ema_decay, or sigma_rel=0.08: one of any length, of the snapshots of train.ema_power"
    p.add_argument(
        "--ema",
        nargs="+" if several else None,
        metavar="DECAY|sigma_rel=L",
        help=f"{'the averages, a table of each and one that compares them' if several else 'the average'}: {text} "
        "(default: the first of train.ema_decay)",
    )


def add_common(p: argparse.ArgumentParser) -> None:
    """Options of every command that samples."""
    p.add_argument(
        "--clip",
        choices=("rederive", "keep_eps", "none"),
        help="clip the predicted clean image to [-1, 1] and derive eps from it again, or keep eps, or do not clip "
        "(default: rederive)",
    )
    p.add_argument(
        "--batch_size",
        type=int,
        metavar="N",
        help="images at once; part of what makes the image (default: that of the images that are there; else 64 on a "
        "CPU, on a GPU what its free memory holds, 64 to 1024)",
    )
    p.add_argument(
        "--class",
        dest="classes",
        nargs="+",
        metavar="C",
        help="of a class-conditional model: images are of these classes in turn; none asks without a class (default: "
        "balanced, all classes in turn)",
    )


def add_chain(p: argparse.ArgumentParser) -> None:
    """The corrections of a command that samples in one way."""
    p.add_argument(
        "--corrections",
        nargs="+",
        metavar="NAME[,KEY=VALUE...]",
        help="changes of what the network says or of the state, in order, as in tsr epsilon_scaling,scale=1.01; "
        f"of {', '.join(CORRECTIONS)} (docs/samplers.md); or none (default: sampling.corrections of the config)",
    )


def add_guidance(p: argparse.ArgumentParser) -> None:
    """A short way to write the correction ``guidance``."""
    p.add_argument(
        "--guidance",
        "--guidance_scale",
        type=float,
        metavar="SCALE",
        help="of a class-conditional model: the correction guidance, before all others, with eps_u + SCALE (eps_c - "
        "eps_u); 1 is none, and each visit asks the network twice (default: none)",
    )


def _add_ends(p: argparse.ArgumentParser) -> None:
    """What may be left out of a walk."""
    p.add_argument(
        "--afs",
        action="store_const",
        const=True,
        help="replace the first network evaluation by what it would say of pure noise, and save it",
    )
    p.add_argument(
        "--denoise_to_zero",
        choices=("true", "false"),
        help="the last step, to the clean image; false leaves it out, and a little noise in the image (default: true)",
    )


def _add_spacing(p: argparse.ArgumentParser, *more: str) -> None:
    p.add_argument(
        "--spacing",
        "--respace_type",
        dest="spacing",
        metavar="NAME[,KEY=VALUE...]",
        help=f"which times are visited with fewer steps: {SPACINGS} (default: uniform-linspace)"
        + ("; none visits every time" if "none" in more else ""),
    )


def add_single(p: argparse.ArgumentParser) -> None:
    """Options of a command that samples in one way."""
    _add_spacing(p, "none")
    _add_ends(p)
    p.add_argument("--sampler", metavar="NAME[,KEY=VALUE...]", help=SAMPLER_HELP)
    p.add_argument(
        "--variance",
        "--var_type",
        dest="var_type",
        choices=VARIANCES,
        metavar="V",
        help=f"of the ancestral sampler: {', '.join(VARIANCES)} (default: diffusion.var_type)",
    )
    add_chain(p)
    p.add_argument("--ddim_eta", type=float, metavar="ETA", help="the sampler ddim with this eta")
    p.add_argument(
        "--steps",
        "--respace_steps",
        dest="steps",
        type=steps,
        metavar="K",
        help="times on the grid, or guided-diffusion's 10,10,5 or ddim50 (default: all of diffusion.total_steps)",
    )
    add_seed(p)


def add_seed(p: argparse.ArgumentParser, text: str = "image i of a seed is always the same image") -> None:
    p.add_argument("--seed", type=int, metavar="S", help=f"{text} (default: 0)")


def add_many(p: argparse.ArgumentParser, defaults: Mapping[str, str] = TABLE_DEFAULTS) -> None:
    """Options of a command that samples in several ways, with several numbers of steps or evaluations.

    Args:
        p: gets them.
        defaults: what holds where nothing is said, by option; for ``--help``.
    """
    add_rows(p, defaults)
    p.add_argument(
        "--evaluations",
        type=int,
        nargs="+",
        metavar="N",
        help="columns instead of --steps: each row takes the largest number of steps that asks the network at most so "
        "often",
    )


def add_rows(p: argparse.ArgumentParser, defaults: Mapping[str, str]) -> None:
    """Options of a command that samples in several ways, with several numbers of steps; see :func:`add_many`."""
    _add_ends(p)
    p.add_argument(
        "--variance",
        "--var_type",
        nargs="+",
        metavar="V",
        help=f"rows of the ancestral sampler: {', '.join(VARIANCES)} (default: {defaults['rows']})",
    )
    p.add_argument(
        "--sampler", nargs="+", metavar="NAME[,KEY=VALUE...]", help="rows, as in ddim,eta=0, after those of --variance"
    )
    p.add_argument(
        "--corrections",
        nargs="+",
        metavar="NAME[,KEY=VALUE...][+NAME...]",
        help="rows: each sampler with each of these chains of corrections, as in none epsilon_scaling,scale=1.01 a+b "
        "(default: sampling.corrections of the config)",
    )
    p.add_argument(
        "--spacing",
        "--respace_type",
        dest="spacing",
        nargs="+",
        metavar="NAME[,KEY=VALUE...]",
        help="rows: each of them with each of these spacings, as for `ddpm-ip sample` "
        f"(default: {defaults['spacing']})",
    )
    p.add_argument(
        "--rows",
        nargs="+",
        metavar="SAMPLER[+CORRECTION...][@SPACING]",
        help="rows one by one, as the table writes them, after those of --variance and --sampler: "
        "dpm_solver@quad fixed_small+epsilon_scaling,scale=1.01; +clip=none and other words of sampling, too",
    )
    p.add_argument(
        "--steps",
        "--respace_steps",
        type=steps,
        nargs="+",
        metavar="K",
        help=f"columns; guided-diffusion's strings, too (default: {defaults['columns']})",
    )


def steps(text: str) -> int | str:
    """A number of steps, or one of guided-diffusion's strings."""
    return int(text) if text.lstrip("-").isdigit() else text


def single_overrides(args: argparse.Namespace, rest: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides of the configuration by the options of :func:`add_common` and :func:`add_single`.

    Args:
        args: as parsed.
        rest: what other ``--key value`` there are, by key; ``sampler.KEY`` is an alias of ``sampling.sampler.KEY``.

    Raises:
        ConfigError: an option cannot be read, or says what another says, too.
    """
    every = args.spacing == "none"
    if every and args.steps is not None:
        raise ConfigError(
            f"--respace_type none visits every time, and --respace_steps says {args.steps}: give one of them"
        )
    found = common_overrides(args, rest)
    if every:
        add_once(found, {"sampling.steps": None})
    if args.sampler is not None:
        add_once(found, sampler_overrides(args.sampler))
    if args.ddim_eta is not None:
        add_once(found, {"sampling.sampler.eta": args.ddim_eta})
        found.setdefault("sampling.sampler.name", "ddim")
    named = {"sampler.var_type": args.var_type, "steps": args.steps, "seed": args.seed}
    add_once(found, {f"sampling.{key}": value for key, value in named.items() if value is not None})
    return found


def _class(word: str, words: Sequence[str]) -> int | str:
    """A word of ``--class`` as the configuration has it."""
    if re.fullmatch("-?[0-9]{1,18}", word):
        return int(word)
    if word == "none" or [*words] == [BALANCED]:
        return word
    raise ConfigError(f"--class {word!r:.80}: a class is its number, from 0, or none; balanced stands alone, for all")


def common_overrides(args: argparse.Namespace, rest: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides of the configuration by the options of :func:`add_common`; see :func:`single_overrides`."""
    found = {(f"sampling.{key}" if key.startswith("sampler.") else key): value for key, value in rest.items()}
    if args.corrections is not None:
        add_once(found, {"sampling.corrections": corrections("+".join(args.corrections), "--corrections")})
    spacing = None if args.spacing == "none" else args.spacing
    named = {"clip": args.clip, "spacing": spacing, "block": args.batch_size, "afs": args.afs}
    if args.classes is not None:
        words = [_class(word, args.classes) for word in args.classes]
        add_once(found, {"sampling.classes": None if words == [BALANCED] else words})
    if args.denoise_to_zero is not None:
        named["denoise_to_zero"] = args.denoise_to_zero == "true"
    add_once(found, {f"sampling.{key}": value for key, value in named.items() if value is not None})
    return found


def variances_as_samplers(variances: Sequence[str] | None, samplers: Sequence[str] | None) -> list[str] | None:
    """The samplers of a results table as texts of ``--sampler``; None if neither is given."""
    if variances is None and samplers is None:
        return None
    return [*(f"ancestral,var_type={v}" for v in variances or ()), *(samplers or ())]


def many_overrides(args: argparse.Namespace, rest: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What :func:`add_many` and :func:`add_common` say: the rows, and what all of them have in common.

    Rows are the product of samplers, corrections and spacings, then those of ``--rows``. No row means that the
    configuration says it.

    Raises:
        ConfigError: an option cannot be read, or has no row to apply to.
    """
    common = common_overrides(argparse.Namespace(**{**vars(args), "corrections": None, "spacing": None}), rest)
    named = variances_as_samplers(args.variance, args.sampler)
    samplers = [{}] if named is None else [sampler_overrides(text) for text in named]
    chains = [{}] if args.corrections is None else [chain_overrides(text) for text in args.corrections]
    spacings = [{}] if args.spacing is None else [{"sampling.spacing": text} for text in args.spacing]
    product = [{**a, **b, **c} for a in samplers for b in chains for c in spacings]
    if args.rows is None:
        return product, common
    if named is None:
        if args.corrections is not None or len(spacings) > 1:
            raise ConfigError(
                "--corrections and --spacing are of the rows of --sampler and --variance; rows of --rows name their own"
            )
        product = []
    base = spacings[0] if len(spacings) == 1 else {}
    return [*product, *({**base, **row_overrides(text)} for text in args.rows)], common


def listed(text: str) -> list[str]:
    """The words of a list with commas, spaces or both."""
    return text.replace(",", " ").split()
