"""Samplers, times and corrections on one trained CIFAR-10 network, scored in FD-C56 as they are made.

    python benchmarks/samplers.py scan        --out scan.json --images 2000 ...     # samplers x spacings x evaluations
    python benchmarks/samplers.py corrections --out corrections.json --images 2000 ...
    python benchmarks/samplers.py closer      --out closer.json --images 2000 ...     # around what was good in these
    python benchmarks/samplers.py analytic    --out analytic.json --images 2000 ...   # needs the training images
    python benchmarks/samplers.py reference   --out reference.json --images 2000 ...  # up to 1,000 evaluations
    python benchmarks/samplers.py learned     --out learned.json --images 2000 ...    # a network with learned variance
    python benchmarks/samplers.py winners     --out winners.json --images 10000 --of scan.json corrections.json ...

(``closer`` has rows with optimised times: first ``ddpm-ip times --weights ... --sampler dpm_solver --steps 6 10 20``.)

with, each time,

    --config cifar10.yaml --weights ema.safetensors --classifier resnet56-4bfd9763.th --statistics c56_train_stats.npz

``--statistics`` holds mean and covariance of the scaled features (benchmarks/c56.py) of the 50,000 training images, so
that no data are needed. Rows that a file has already are not made again, ``--seconds`` ends a call in time, and
``--part 1/2`` takes every second row, for two GPUs. FD-C56 is NOT FID; of 2,000 images it is higher than of 10,000.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from c56 import C56
from cifar_features import class_score

from ddpm_ip import texts
from ddpm_ip.config import Config, from_dict, load
from ddpm_ip.errors import ConfigError
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.provenance import provenance
from ddpm_ip.run.row import row_label
from ddpm_ip.run.weights import find_weights
from ddpm_ip.sample.filled import filled
from ddpm_ip.sample.generator import Model
from ddpm_ip.sample.program import load_model, sampling_engine
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.sampler.spacing import OPTIMISED as OPTIMISED_TIMES
from ddpm_ip.schedule import Schedule

EVALUATIONS = (6, 10, 20, 50)
SPACINGS = ("uniform-linspace", "uniform-leading", "quad", "logsnr", "karras", "beta")
SPACINGS_AT_50 = ("uniform-linspace", "logsnr", "karras")
FAMILIES = {
    "ancestral": ("ancestral,var_type=fixed_small", "ancestral,var_type=fixed_large"),
    "ddim": ("ddim", "ddim,eta=0.5"),
    "dpm_solver": ("dpm_solver,order=2", "dpm_solver,order=3"),
    "dpm_solver_single": ("dpm_solver_single,order=2", "dpm_solver_single,order=3"),
    "dpm_solver_sde": ("dpm_solver_sde",),
    "unipc": ("unipc,order=2", "unipc,order=3"),
    "ipndm": ("ipndm,order=2", "ipndm,order=4"),
    "ipndm_v": ("ipndm_v,order=3",),
    "deis": ("deis,order=2", "deis,order=3"),
    "heun": ("heun",),
    "sa_solver": ("sa_solver",),
    "er_sde": ("er_sde,order=2", "er_sde,order=3"),
}
CORRECTED = {  # sampler: its times
    "ddim": "logsnr",
    "dpm_solver,order=2": "logsnr",
    "ipndm,order=4": "karras",
    "ancestral,var_type=fixed_small": "uniform-linspace",
}
CORRECTIONS = (
    "epsilon_scaling,scale=0.995", "epsilon_scaling,scale=1.005", "epsilon_scaling,scale=1.02",
    "tsr,k=0.99", "tsr,k=0.97", "tsr,k=0.93",
    "ip_emulator,gamma=0.1", "ip_emulator,gamma=0.2", "ip_emulator,gamma=0.1,undo=true",
    "time_shift,window=10", "time_shift,window=30", "time_shift,window=80",
    "dcw,low=0.002", "dcw,low=0.005", "dcw,low=0.02",
    "variance_normalisation",
    "dynamic_thresholding",
)  # fmt: skip
STRONGER = ("epsilon_scaling,scale=1.03", "epsilon_scaling,scale=1.05", "epsilon_scaling,scale=1.08")
GOOD = (  # in the scan, at 6 to 20 evaluations
    ("dpm_solver_single,order=3", "uniform-leading"),
    ("dpm_solver,order=3", "logsnr"),
    ("dpm_solver,order=2", "karras"),
    ("dpm_solver_sde", "quad"),
    ("er_sde,order=3", "uniform-leading"),
    ("deis,order=3", "uniform-leading"),
    ("ipndm,order=2", "uniform-leading"),
    ("ddim,eta=0.5", "quad"),
)
BESIDE = (
    "ip_emulator,gamma=0.1,undo=true", "variance_normalisation", "epsilon_scaling,scale=0.9975",
    "epsilon_scaling,scale=0.9925", "tsr,k=1.02", "ip_emulator,gamma=0.1,undo=true+variance_normalisation",
)  # fmt: skip
OPTIMISED = (
    "ddim", "dpm_solver,order=2", "dpm_solver,order=3", "unipc,order=2", "ipndm,order=2", "ipndm,order=4",
    "ipndm_v,order=3", "deis,order=3", "er_sde,order=3",
)  # fmt: skip
OTHERS = (  # evaluations, sampler, times, and what is unusual
    *((n, "dpm_solver,order=3,corrected=true", "logsnr", "") for n in (6, 10, 20)),
    *((n, "sa_solver,linear_term=exact", "quad", "") for n in (10, 20)),
    *((n, "sa_solver,linear_term=exact", "logsnr", "") for n in (10, 20, 50)),
    *((n, "sa_solver,predictor_order=3,corrector_order=4", "quad", "") for n in (10, 20)),
    *((n, "ipndm_v,order=2", "uniform-leading", "") for n in (6, 10)),
    *((n, "deis,order=4", "uniform-leading", "") for n in (6, 10)),
    *((n, "restart", "karras", "") for n in (20, 50)),
    *((n, "restart,rho_high=2", "karras", "") for n in (20, 50)),
    *((50, f"heun,s_churn={c}", "karras", "") for c in (10, 40)),
    *((n, "ddim,eta=1", "quad", "") for n in (10, 20)),
    *((10, s, "logsnr", f"clip={c}") for s in ("dpm_solver", "ipndm,order=4", "ddim") for c in ("none", "keep_eps")),
    *((10, s, t, "afs=true") for s, t in (("dpm_solver", "karras"), ("ddim", "uniform-linspace"))),
    *((9, "dpm_solver", "karras", ""), ),
    *((n, s, t, "denoise_to_zero=false") for n in (10, 20) for s, t in (("dpm_solver", "karras"), ("ddim", "quad"))),
)  # fmt: skip
LEARNED = (
    "dpm_solver,order=2", "dpm_solver,order=3", "unipc,order=2", "dpm_solver_sde", "sa_solver", "er_sde,order=3",
    "ddim", "ddim,eta=0.5", "deis,order=2", "ipndm,order=2",
)  # fmt: skip
MORE_OF_50 = (
    "tsr,k=0.91", "tsr,k=0.89", "tsr,k=0.91,sigma=1", "tsr,k=0.93,sigma=1", "epsilon_scaling,scale=1.0275",
    "epsilon_scaling,scale=1.035", "epsilon_scaling,scale=1.04", "dcw,low=0.05", "dcw,low=0.08",
    "dcw,low=0.03,high=0.01", "ip_emulator,gamma=0.25", "ip_emulator,gamma=0.3",
)  # fmt: skip
REFERENCES = (  # the cheap ones first
    ("dpm_solver_sde", "logsnr", (100, 200)),
    ("sa_solver", "logsnr", (100,)),
    ("ancestral,var_type=fixed_small", "uniform-linspace", (200,)),
    ("ddim", "uniform-linspace", (100, 200)),
    ("dpm_solver,order=2", "logsnr", (100,)),
    ("heun", "karras", (100,)),
    ("ipndm,order=4", "karras", (100,)),
    ("er_sde,order=3", "logsnr", (100,)),
    ("ancestral,var_type=fixed_large", "uniform-linspace", (1000,)),
    ("ancestral,var_type=fixed_small", "uniform-linspace", (1000,)),
)


@dataclass(frozen=True)
class Cell:
    """One way to make images.

    Args:
        sampler, corrections: as ``--sampler`` and ``--corrections`` have them; corrections with + between them.
        spacing: of the times.
        evaluations: of the network, at most; the largest number of steps that needs no more is taken.
        seed: of the images.
        unusual: other fields of ``sampling``, as in clip=none.
    """

    sampler: str
    spacing: str
    evaluations: int
    corrections: str = ""
    seed: int = 0
    unusual: str = ""

    def sampling(self, config: Config) -> Sampling:
        """Its steps are those that fit.

        Raises:
            ConfigError: there is no such sampling.
        """
        overrides: dict[str, Any] = texts.sampler_overrides(self.sampler)
        overrides["sampling.corrections"] = [
            texts.variant(c, "--corrections") for c in self.corrections.split("+") if c
        ]
        if self.unusual:
            key, _, value = self.unusual.partition("=")
            overrides[f"sampling.{key}"] = {"true": True, "false": False}.get(value, value)
        wanted = from_dict(config.to_dict(), "samplers.py", overrides).sampling
        wanted = replace(wanted, spacing=self.spacing, seed=self.seed)
        schedule: Schedule = config.diffusion.schedule
        for steps in range(self.evaluations, 0, -1):
            found = replace(wanted, steps=steps)
            if self.spacing == OPTIMISED_TIMES or "analytic" in self.sampler:  # one evaluation a step, filled in later
                return found
            if found.plan(schedule).visits <= self.evaluations:
                return found
        raise ConfigError(f"{self}: no number of steps needs so few evaluations")


def scan(_: object) -> Iterator[Cell]:
    """Samplers, times, evaluations; and how far three seeds are apart."""
    for evaluations in EVALUATIONS:
        for family in FAMILIES.values():
            for sampler in family:
                for spacing in SPACINGS if evaluations < 50 else SPACINGS_AT_50:
                    yield Cell(sampler, spacing, evaluations)
    for seed in (1, 2):
        yield Cell("dpm_solver,order=2", "logsnr", 10, seed=seed)


def corrections(_: object) -> Iterator[Cell]:
    """Each correction in three strengths, and none."""
    for evaluations in (10, 20, 50):
        for sampler, spacing in CORRECTED.items():
            more = STRONGER if sampler.startswith("ancestral") else ()
            for correction in ("", *CORRECTIONS, *more):
                yield Cell(sampler, spacing, evaluations, correction)


def closer(_: object) -> Iterator[Cell]:
    """More of what was good in the first calls, and what they did not have."""
    for evaluations in (6, 10, 20):
        for sampler, spacing in GOOD:
            for correction in BESIDE:
                yield Cell(sampler, spacing, evaluations, correction)
    yield from optimised(None)
    for evaluations, sampler, spacing, unusual in OTHERS:
        yield Cell(sampler, spacing, evaluations, unusual=unusual)
    for correction in MORE_OF_50:
        for spacing in ("uniform-linspace", "logsnr"):
            yield Cell("ancestral,var_type=fixed_small", spacing, 50, correction)


def optimised(_: object) -> Iterator[Cell]:
    """Times that ``ddpm-ip times`` found."""
    for evaluations in (6, 10, 20):
        for sampler in OPTIMISED:
            yield Cell(sampler, "optimised", evaluations)


def analytic(_: object) -> Iterator[Cell]:
    """Ancestral sampling with variances that are measured."""
    for evaluations in EVALUATIONS:
        for var_type in ("analytic", "analytic_residual"):
            for spacing in ("uniform-linspace", "uniform-leading", "quad", "logsnr"):
                yield Cell(f"ancestral,var_type={var_type}", spacing, evaluations)


def reference(_: object) -> Iterator[Cell]:
    """Many evaluations, no correction."""
    for sampler, spacing, counts in REFERENCES:
        for evaluations in counts:
            yield Cell(sampler, spacing, evaluations)


def learned(_: object) -> Iterator[Cell]:
    """A network with learned variance: ancestral sampling with it, and what was good elsewhere, at 10 and 50."""
    for evaluations in (10, 50):
        for spacing in ("uniform-linspace", "uniform-leading", "quad"):
            yield Cell("ancestral,var_type=learned_range", spacing, evaluations)
        for sampler in LEARNED:
            for spacing in ("uniform-linspace", "uniform-leading", "quad", "logsnr", "karras"):
                yield Cell(sampler, spacing, evaluations)


def winners(files: list[Path]) -> Iterator[Cell]:
    """The best times of each family at each number of evaluations (at 50 of four families), and at each number the
    three best with a correction; the best of ancestral sampling corrected at 50; the best reference of at most 200."""
    rows = [row for path in files for row in json.loads(path.read_text())["rows"] if row.get("FD-C56") is not None]
    rows = sorted((row for row in rows if row["seed"] == 0), key=lambda row: float(row["FD-C56"]))
    chosen: dict[int, dict[str, Any]] = {}  # by identity, so that a row that wins twice is made once
    for asked in EVALUATIONS:
        here = [row for row in rows if row["evaluations_at_most"] == asked]
        plain = {row["sampler"].split(",")[0]: row for row in reversed(here) if not row["corrections"]}
        best = sorted(plain.values(), key=lambda row: float(row["FD-C56"]))
        corrected = [row for row in here if row["corrections"]]
        ancestral = [row for row in corrected if row["sampler"].startswith("ancestral")]
        for row in (*best[: 4 if asked == 50 else None], *corrected[:3], *(ancestral[:1] if asked == 50 else ())):
            chosen[id(row)] = row
        if asked == 50:  # what the corrected ones are compared with
            yield Cell("ancestral,var_type=fixed_small", "uniform-linspace", 50)
    many = [row for row in rows if max(EVALUATIONS) < row["evaluations_at_most"] <= 200]
    for row in [*chosen.values(), *many[:1]]:
        more = row.get("unusual", "")
        yield Cell(row["sampler"], row["spacing"], row["evaluations_at_most"], row["corrections"], 0, more)


LISTS = {
    "scan": scan, "corrections": corrections, "closer": closer, "optimised": optimised, "analytic": analytic,
    "reference": reference, "learned": learned, "winners": winners,
}  # fmt: skip


class Score:
    """FD-C56 and CS-C56 of images as they come."""

    def __init__(self, classifier: Path, statistics: Path, device: torch.device) -> None:
        self._extractor = C56(device, classifier)
        with np.load(statistics) as file:
            self._mean, covariance = file["mu"], file["cov"]
        w, v = np.linalg.eigh(covariance)
        self._root, self._trace = (v * np.sqrt(np.clip(w, 0, None))) @ v.T, np.trace(covariance)

    @torch.no_grad()
    def seen(self, blocks: Iterator[Any], device: torch.device) -> tuple[np.ndarray, np.ndarray]:
        """Features (N, 160) and probabilities of classes (N, 10) of ``uint8`` (B, 3, 32, 32) blocks."""
        found = [self._extractor(torch.from_numpy(block).to(device)) for block in blocks]
        features = torch.cat([f["pool"].double() for f in found]).cpu().numpy()
        return features, torch.cat([f["logits"].double().softmax(1) for f in found]).cpu().numpy()

    def distance(self, features: np.ndarray) -> float:
        """FD-C56 of features (N, 160): the distance of the Gaussians fitted to them and to the training images'."""
        difference, covariance = features.mean(0) - self._mean, np.cov(features, rowvar=False)
        cross = np.sqrt(np.clip(np.linalg.eigvalsh(self._root @ covariance @ self._root), 0, None)).sum()
        return float(difference @ difference + self._trace + np.trace(covariance) - 2 * cross)

    def __call__(self, blocks: Iterator[Any], device: torch.device) -> dict[str, float]:
        """Of ``uint8`` (B, 3, 32, 32) blocks."""
        features, probabilities = self.seen(blocks, device)
        return {"FD-C56": self.distance(features), "CS-C56": class_score(probabilities)[0], "n": len(features)}


def measure(cells: list[Cell], model: Model, config: Config, score: Score, args: argparse.Namespace) -> None:
    """Measures the cells that the file lacks, and writes it after each."""
    begin, known = time.monotonic(), about(args)
    rows: list[dict[str, Any]] = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    there = {_key(row) for row in rows}
    for cell in cells:
        if time.monotonic() - begin > args.seconds:
            print("the time is over", flush=True)
            break
        row: dict[str, Any] = {
            "sampler": cell.sampler, "spacing": cell.spacing, "corrections": cell.corrections,
            "evaluations_at_most": cell.evaluations, "seed": cell.seed, "images": args.images,
            "unusual": cell.unusual,
        }  # fmt: skip
        if _key(row) in there:
            continue
        start = time.monotonic()
        try:
            store = Measured.of(known["weights_sha256"], args.weights)
            sampling = filled(replace(cell.sampling(config), block=args.block), config, store, model)
            generator = model.generator(sampling)
            row |= score(generator.mine(args.images), model.device)
            row |= {
                "label": row_label(generator.facts()),
                "steps": sampling.steps,
                "evaluations": generator.plan.visits,
            }
        except (ConfigError, ArithmeticError, np.linalg.LinAlgError) as error:
            row["refused"] = str(error)
        row["seconds"] = round(time.monotonic() - start, 2)
        rows.append(row)
        print(json.dumps(row), flush=True)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({**known, "rows": rows}, indent=1) + "\n")


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    names = ("sampler", "spacing", "corrections", "evaluations_at_most", "seed", "images")
    return (*(row[name] for name in names), row.get("unusual", ""))


def here(commit: str | None) -> dict[str, Any]:
    """When, where and with what something was measured; ``commit`` where there is no repository."""
    known = provenance()
    return {
        "date": date.today().isoformat(),
        "hardware": known["hardware"],
        "versions": known["versions"],
        "git": {"commit": commit} if commit else known["git"],
        "command": known["command"],
    }


def about(args: argparse.Namespace) -> dict[str, Any]:
    """What the rows of a file have in common."""
    return {
        **here(args.commit),
        "metric": "FD-C56 and CS-C56 against the 50,000 training images (not FID, not IS)",
        "network": args.network,
        "weights_sha256": hashlib.sha256(args.weights.read_bytes()).hexdigest(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(LISTS))
    for name in ("config", "weights", "classifier", "statistics", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="the Parquet shards, for analytic")
    parser.add_argument("--of", type=Path, nargs="+", default=[], help="of winners: the files of the other calls")
    parser.add_argument("--network", default="", help="how the weights were made, for the file")
    parser.add_argument("--commit", help="where there is no repository")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--block", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--part", default="0/1", help="I/N: the rows I, I + N, ...")
    args = parser.parse_args()
    part, parts = map(int, args.part.split("/"))
    cells = list(LISTS[args.what](args.of))[part::parts]
    config = load(args.config, {"data.root": str(args.data)} if args.data else None)
    engine = sampling_engine(config, config.sampling)
    found = find_weights(args.weights)
    model = load_model(config, found.tensors, engine, str(args.weights))
    measure(cells, model, config, Score(args.classifier, args.statistics, engine.device), args)


if __name__ == "__main__":
    main()
