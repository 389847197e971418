"""ADM's U-Net on one GPU: our fast path, our plain path and guided-diffusion's own code, in one process.

    git clone https://github.com/openai/guided-diffusion /tmp/theirs
    python benchmarks/adm.py --theirs /tmp/theirs --out benchmarks/results/NAME.json [--key value ...]

Network and recipe are those of configs/adm_ip_cifar10.yaml (``--config``), on random images. Measured are training
steps, and a sampling of so many evaluations from noise to ``uint8`` in host memory; one system after the other, each
row written when it is done. Ours is as in ``ddpm-ip bench``. guided-diffusion's step is its loop written from its own
functions: ``create_model_and_diffusion``, ``MixedPrecisionTrainer`` in fp16, AdamW, the average; its sampling is
``p_sample_loop`` of a respaced diffusion in fp16. What would cost it more is left out: its loader (the batch lies on
the device), DDP, the perturbation, and the log of every step. Its time sampler is the uniform one.

A ratio is told only between rows of the same call.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState

from ddpm_ip.bench import ours
from ddpm_ip.bench.measure import Plan, Step, gflop_per_image, measure
from ddpm_ip.config import Config, load, parse_overrides
from ddpm_ip.data.imageset import ImageSet, from_arrays
from ddpm_ip.engine import start_engine
from ddpm_ip.nn import ADMConfig
from ddpm_ip.run.provenance import provenance
from ddpm_ip.sample.program import load_model
from ddpm_ip.sampler.sampling import Sampling

IMAGES = 4096
TASKS = ("train", "sample")
SYSTEMS = ("ours", "plain", "guided-diffusion")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/adm_ip_cifar10.yaml"), help="default: %(default)s")
    parser.add_argument("--theirs", type=Path, help="a folder with the package guided_diffusion")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--batch", type=int, default=128, help="of a training step (default: %(default)s)")
    parser.add_argument("--sample_batch", type=int, default=256, help="images sampled at once (default: %(default)s)")
    parser.add_argument(
        "--evaluations", type=int, default=10, help="of the network in a sampling (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=40, help="timed training steps (default: %(default)s)")
    parser.add_argument("--commit", help="of the tree that is measured, where there is no repository")
    parser.add_argument(
        "--out", type=Path, default=Path(f"{Path(__file__).stem}.json"), help="default: %(default)s here"
    )
    args, rest = parser.parse_known_args()
    bench = prepare(args, load(args.config, parse_overrides(rest)))
    here = provenance()
    record: dict[str, Any] = {
        "date": date.today().isoformat(),
        **{key: here[key] for key in ("hardware", "versions", "git", "command")},
        "made_by": "benchmarks/adm.py",
        "gflop_an_image": dict(zip(("evaluation", "training_step"), gflop_per_image(bench.config), strict=True)),
        "parameters": sum(p.numel() for p in bench.config.build_network().parameters()),
        "rows": [],
    }
    if args.commit:
        record["git"] = {"commit": args.commit}
    for case in cases(bench, args):
        record["rows"].append(row(bench, case, record))
        print(json.dumps(record["rows"][-1]), flush=True)
        record["times_ours"] = ratios(record["rows"])
        args.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["times_ours"], indent=1))


@dataclass(frozen=True)
class Bench:
    """What all rows share.

    Args:
        config: network and recipe.
        images: random ones.
        theirs: their package, where there is one.
        plans: how often a step of each task is taken.
    """

    config: Config
    images: ImageSet
    theirs: Theirs | None
    plans: dict[str, Plan]


@dataclass(frozen=True)
class Case:
    """A row: ``make`` gives the step that is timed, of ``batch`` images and ``evaluations`` of the network."""

    task: str
    system: str
    precision: str
    make: Callable[[], Step]
    batch: int
    evaluations: int


def prepare(args: argparse.Namespace, config: Config) -> Bench:
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, *config.shape), dtype=np.uint8)
    images = from_arrays(pixels, None, "random", config.data.image_size, progress=False)
    theirs = Theirs(config, import_theirs(args.theirs), torch.cuda.is_available()) if args.theirs else None
    return Bench(config, images, theirs, {"train": Plan(10, args.steps), "sample": Plan(1, 4)})


def cases(bench: Bench, args: argparse.Namespace) -> list[Case]:
    """All rows, training first; ours before the others."""
    found = []
    for task in args.tasks:
        batch, evaluations = (args.batch, 1) if task == "train" else (args.sample_batch, args.evaluations)
        for system, fast, precision in (("ours", "auto", "bf16"), ("plain", "off", "no"), ("plain", "off", "bf16")):
            settings = {"batch_size": batch, "fast": fast, "mixed_precision": precision}
            config = dataclasses.replace(bench.config, train=dataclasses.replace(bench.config.train, **settings))
            work = of_ours(config, bench.images, task, evaluations)
            found.append(Case(task, system, precision, work, batch, evaluations))
        if bench.theirs is not None:
            make = bench.theirs.train if task == "train" else bench.theirs.sample
            work = lambda make=make, batch=batch, n=evaluations: make(batch, n)  # noqa: E731
            found.append(Case(task, "guided-diffusion", bench.theirs.precision, work, batch, evaluations))
    return [case for case in found if case.system in args.systems]


def row(bench: Bench, case: Case, record: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds and images a second of a case, or what went wrong."""
    facts = {key: getattr(case, key) for key in ("task", "system", "precision", "batch", "evaluations")}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        timing = measure(case.make, bench.plans[case.task], device)
    except Exception as error:  # the rows that follow may be well
        return {**facts, "error": f"{type(error).__name__}: {error}"[:500]}
    ms = statistics.median(timing.ms)
    gflop = record["gflop_an_image"]["training_step" if case.task == "train" else "evaluation"] * case.evaluations
    ordered = sorted(timing.ms)
    return {
        **facts,
        "ms": ms,
        "ms_p10_p90": [ordered[len(ordered) // 10], ordered[-1 - len(ordered) // 10]],
        "images_a_second": 1000 * case.batch / ms,
        "tflop_s": gflop * case.batch / ms,
        "ready_s": timing.warmup_s,
        "memory_gib": timing.memory_gib,
    }


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """How many times as many images ours makes in a second, by task, system and precision."""
    ours_by_task = {r["task"]: r["images_a_second"] for r in rows if r["system"] == "ours" and "ms" in r}
    return {
        f"{r['task']}, {r['system']} {r['precision']}": ours_by_task[r["task"]] / r["images_a_second"]
        for r in rows
        if r["system"] != "ours" and "ms" in r and r["task"] in ours_by_task
    }


def of_ours(config: Config, images: ImageSet, task: str, evaluations: int) -> Callable[[], Step]:
    """Either path, in the precision that the configuration says."""

    def make() -> Step:
        AcceleratorState._reset_state(True)
        accelerator = start_engine(config.train.mixed_precision)
        if task == "train":
            return ours.train(config, images, accelerator)
        model = load_model(config, ours._weights(config), accelerator)
        wanted = dataclasses.replace(config.sampling_in_training(evaluations), block=config.train.batch_size)
        assert isinstance(wanted, Sampling)
        generator = model.generator(wanted)
        if accelerator.device.type == "cuda" and (generator.graph is None) is (config.train.fast == "auto"):
            raise RuntimeError("not the path that is measured, see the log")
        return lambda: generator.images(0)

    return make


@dataclass(frozen=True)
class Theirs:
    """guided-diffusion, with the sizes of a configuration.

    Args:
        config: its network is ADM's.
        package: its modules, by name.
        fp16: whether its network computes in fp16; on a CPU it does not.
    """

    config: Config
    package: dict[str, ModuleType]
    fp16: bool

    @property
    def precision(self) -> str:
        return "fp16" if self.fp16 else "no"

    def train(self, batch: int, evaluations: int) -> Step:
        """A pass of its training loop."""
        model, diffusion = self._made(respacing="")
        trainer = self.package["fp16_util"].MixedPrecisionTrainer(model=model, use_fp16=self.fp16)
        recipe = self.config.train.optim
        optimizer = torch.optim.AdamW(trainer.master_params, lr=recipe.lr, weight_decay=recipe.weight_decay)
        average = [p.detach().clone() for p in trainer.master_params]
        times = self.package["resample"].create_named_schedule_sampler("uniform", diffusion)
        device = next(model.parameters()).device
        x0 = torch.rand(batch, *self.config.shape, device=device) * 2 - 1
        model.train()

        def step() -> None:
            trainer.zero_grad()
            t, weights = times.sample(batch, device)
            losses = diffusion.training_losses(model, x0, t, model_kwargs={})
            trainer.backward((losses["loss"] * weights).mean())
            if trainer.optimize(optimizer):
                self.package["nn"].update_ema(average, trainer.master_params, rate=self.config.train.ema_decay)

        return step

    def sample(self, batch: int, evaluations: int) -> Step:
        """Images from noise, ancestral, in as many steps as it is asked for."""
        model, diffusion = self._made(respacing=str(evaluations))
        if self.fp16:
            model.convert_to_fp16()
        model.eval()
        device = next(model.parameters()).device

        def step() -> torch.Tensor:
            images = diffusion.p_sample_loop(model, (batch, *self.config.shape), device=device)
            pixels = ((images + 1) * 127.5).clamp(0, 255).to(torch.uint8)
            return pixels.permute(0, 2, 3, 1).contiguous().cpu()  # type: ignore[no-any-return]

        return step

    def _made(self, respacing: str) -> tuple[Any, Any]:
        """Its network and diffusion."""
        m, d, script = self.config.model, self.config.diffusion, self.package["script_util"]
        assert isinstance(m, ADMConfig), "guided-diffusion has ADM's network alone: choose a config of it"
        size = self.config.shape[-1]
        attention = [size // 2**i for i, wanted in enumerate(m.use_attn) if wanted]
        settings = script.model_and_diffusion_defaults() | {
            "image_size": size,
            "num_channels": m.dim,
            "num_res_blocks": m.num_res_blocks,
            "num_heads": m.n_heads,
            "num_head_channels": m.head_channels or -1,
            "attention_resolutions": ",".join(map(str, attention)),
            "channel_mult": ",".join(f"{mult:g}" for mult in m.dim_mults),
            "dropout": m.dropout,
            "use_scale_shift_norm": m.scale_shift_norm,
            "resblock_updown": m.resblock_updown,
            "use_new_attention_order": m.attention_order == "new",
            "use_fp16": self.fp16,
            "learn_sigma": d.learned_variance,
            "rescale_learned_sigmas": d.learned_variance,
            "diffusion_steps": d.total_steps,
            "noise_schedule": d.beta_schedule,
            "timestep_respacing": respacing,
        }
        torch.manual_seed(0)
        model, diffusion = script.create_model_and_diffusion(**settings)
        wanted, made = (sum(p.numel() for p in net.parameters()) for net in (self.config.build_network(), model))
        assert made == wanted, f"its network has {made} parameters, ours {wanted}: the configuration is not the same"
        with torch.no_grad():  # as in ours: what is initialised to zero is random, so that nothing can be skipped
            for p in model.parameters():
                if p.ndim > 1 and not p.any():
                    p.normal_(std=p[0].numel() ** -0.5)
        return model.to("cuda" if torch.cuda.is_available() else "cpu"), diffusion


def import_theirs(folder: Path) -> dict[str, ModuleType]:
    """The modules of the package in this folder; what they import for many machines is not needed on one."""
    sys.path.insert(0, str(folder.resolve()))
    for name, stub in (("blobfile", {}), ("mpi4py", {"MPI": SimpleNamespace(COMM_WORLD=None)})):
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = ModuleType(name)
            vars(sys.modules[name]).update(stub)
    wanted = ("script_util", "fp16_util", "resample", "nn", "logger")
    package = {name: importlib.import_module(f"guided_diffusion.{name}") for name in wanted}
    package["logger"].configure(dir=tempfile.mkdtemp(), format_strs=[])
    return package


if __name__ == "__main__":
    main()
