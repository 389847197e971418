"""What a sampler costs beside its network on a GPU: the update kernel of a visit, for each number of memories.

    python benchmarks/update_cost.py --out benchmarks/results/NAME.json [-c CONFIG] [--batch 512] [--key value ...]

The network is that of the configuration (by default configs/ddpm_ip_cifar10.yaml) with random weights, in bf16, as the
captured graph of a walk asks it. Times are medians of replays of CUDA graphs:

    network  one evaluation
    visit    a whole visit as it is captured: table, network, clipping, update
    updates  the update kernel by itself, on tensors that are no longer in the cache. "all" uses and changes every
             memory, with each column of the table: the most that a row can ask for. The others are rows of samplers.

``share`` is the part of a network evaluation that an update takes. On a CPU the same code runs in Triton's interpreter,
which shows that it runs, and no speed.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import date
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor

from ddpm_ip.bench import ours
from ddpm_ip.config import Config, load, parse_overrides
from ddpm_ip.denoiser import Prediction
from ddpm_ip.draws import Draws, words
from ddpm_ip.engine import start_engine
from ddpm_ip.run.provenance import provenance
from ddpm_ip.sample.program import load_model
from ddpm_ip.sampler import DDIM, Ancestral, DPMSolver, Plan, Rows
from ddpm_ip.sampler.base import MEMORIES
from ddpm_ip.sampler.graph import Graph
from ddpm_ip.sampler.packed import CHANGES, LEARNED, USED, packed
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.sampler.update_kernel import update
from ddpm_ip.schedule import Schedule

ROOT = Path(__file__).resolve().parents[1]
TIMES = [900, 600, 300]  # the rows that are timed are those of the second
SETS_BYTES = 512 << 20  # of states that take turns: several times the cache of a GPU


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", type=Path, default=ROOT / "configs/ddpm_ip_cifar10.yaml")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--commit", help="of the tree that is measured, where there is no repository")
    parser.add_argument("--out", type=Path, default=Path("update_cost.json"), help="default: %(default)s here")
    args, rest = parser.parse_known_args()
    config = load(args.config, parse_overrides(rest))
    here = provenance()
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "hardware": here["hardware"],
        "versions": {**here["versions"], "triton": triton.__version__},
        "git": {"commit": args.commit} if args.commit else here["git"],
        "command": here["command"],
        "made_by": "benchmarks/update_cost.py",
        "batch": args.batch,
        "unit": "milliseconds, median of 9 replays",
        **measured(config, args.batch),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"network {result['network_ms']:.3f} ms, visit {result['visit_ms']:.3f} ms")
    for row in result["updates"]:
        print(f"  {row['ms']:8.4f} ms, {100 * row['share']:5.2f} %  {row['what']}, {row['gb']:.3f} GB")
    print(f"the most that a row can ask for: {100 * result['largest_share']:.2f} % of a network evaluation")


def measured(config: Config, batch: int) -> dict[str, Any]:
    """Times of the network, of a visit, and of updates."""
    graph = captured(config, batch)
    visit_ms, network_ms = time_of_visits(graph), time_of_network(graph)
    updates = []
    for what, plan in plans(config.diffusion.schedule):
        row = packed(plan, {})[1].to(graph._xt.device)
        ms = time_of_update(row, (batch, *config.shape))
        gb = 4e-9 * batch * graph._xt[0].numel() * touched(row)
        updates.append({"what": what, "ms": ms, "share": ms / network_ms, "gb": gb, "tb_s": gb / ms})
    return {
        "shape": list(config.shape),
        "network_ms": network_ms,
        "visit_ms": visit_ms,
        "beside_the_network": visit_ms / network_ms - 1,
        "largest_share": max(row["share"] for row in updates),
        "updates": updates,
    }


def captured(config: Config, batch: int) -> Graph:
    """The graph of a walk over all times, of random weights."""
    engine = start_engine("bf16" if torch.cuda.is_available() else "no", fast=True)
    model = load_model(config, ours._weights(config), engine)
    generator = model.generator(Sampling(Ancestral("fixed_small"), block=batch))
    if generator.graph is not None:
        return generator.graph
    if engine.device.type == "cuda":
        raise RuntimeError("the fast path could not be used, see the log")
    corrections = generator.sampling.all_corrections()
    return Graph(model.denoiser, corrections, generator.plan, batch, config.shape, engine.device)


def plans(schedule: Schedule) -> Iterator[tuple[str, Plan]]:
    """What is timed, by name."""
    for memories in range(MEMORIES + 1):
        for noise in (False, True):
            yield f"all, {memories} memories, {'with' if noise else 'without'} noise", full(schedule, memories, noise)
    yield "ancestral", Ancestral("fixed_small").plan(schedule, TIMES)
    yield "ddim", DDIM().plan(schedule, TIMES)
    yield "dpm_solver of order 2", DPMSolver().plan(schedule, TIMES)


def full(schedule: Schedule, memories: int, noise: bool) -> Plan:
    """Rows in which every component changes and has every weight; small ones, so that nothing grows."""
    rows = Rows(schedule, memories)
    for t, s in zip(TIMES, [*TIMES[1:], -1], strict=True):
        everything = 0.1 * (sum(rows.m, rows.x) + rows.x0 + rows.eps + noise * rows.noise)
        rows.add(t, s, everything, [(0.5 + 0.1 * k) * everything for k in range(memories)])
    return rows.plan()


def touched(row: Tensor) -> int:
    """How many numbers the kernel reads and writes for one of a state; the noise is made in registers."""
    return int(row[USED : LEARNED - 1].count_nonzero() + row[CHANGES:USED].count_nonzero())


def time_of_update(row: Tensor, shape: tuple[int, ...]) -> float:
    """Milliseconds of the kernel with a row of a table."""
    device = row.device
    index, seed = torch.arange(shape[0], device=device), words(7).to(device)
    draws = Draws(seed, torch.zeros(1, dtype=torch.int64, device=device), index)
    tensors = 3 + MEMORIES
    count = max(1, SETS_BYTES // (4 * math.prod(shape) * tensors)) if device.type == "cuda" else 1
    sets = cycle([torch.randn(tensors, *shape, device=device) for _ in range(count)])

    def work() -> None:
        x, x0, eps, *_ = tensors = next(sets)
        update(x, tensors[3:], Prediction(x0, eps, eps, None), row, draws)

    return milliseconds(work, device, max(50, count) if device.type == "cuda" else 1)


def time_of_network(graph: Graph) -> float:
    """Milliseconds of an evaluation, as a visit asks for it."""
    xt, device = graph._xt, graph._xt.device
    xt.normal_()
    t = torch.full((len(xt),), 500.0, device=device)
    alpha, sigma = (torch.full((1, 1, 1, 1), v, device=device) for v in graph.denoiser.schedule.level(500))
    with torch.no_grad():
        return milliseconds(lambda: graph.denoiser.at(xt, t, alpha, sigma), device, 3 if device.type == "cuda" else 1)


def time_of_visits(graph: Graph) -> float:
    """Milliseconds of a replay of the graph of a walk."""
    device = graph._xt.device
    warm, timed = (20, 100) if device.type == "cuda" else (1, 2)
    graph._start(graph._indices)  # the walk has a row for each of these visits
    for _ in range(warm):
        graph._advance()
    return statistics.median(clocked(graph._advance, device, timed))


def milliseconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """The median of nine replays of a graph of ``repeats`` calls; on a CPU the median of two calls."""
    work()
    if device.type != "cuda":
        return statistics.median(clocked(work, device, 2))
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            work()
    for _ in range(3):
        graph.replay()
    return statistics.median(clocked(graph.replay, device, 9)) / repeats


def clocked(work: Callable[[], object], device: torch.device, times: int) -> list[float]:
    """Milliseconds of each call."""
    found = []
    for _ in range(times):
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            torch.cuda.synchronize()
            found.append(start.elapsed_time(end))
        else:
            begun = time.perf_counter()
            work()
            found.append(1000 * (time.perf_counter() - begun))
    return found


if __name__ == "__main__":
    main()
