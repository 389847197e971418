"""What several GPUs gain and cost: the parts of benchmarks/scaling_gpu.sh that are no command of the package.

torchrun --nproc_per_node N benchmarks/scaling.py reduce --out FILE    # ms of the all-reduce of a step, in a CUDA graph
python benchmarks/scaling.py losses --out FILE                          # of 200 steps on several GPUs beside one
python benchmarks/scaling.py kills --gpus N --kills K --out FILE        # kill -9 and resume, beside a run without
python benchmarks/scaling.py run FOLDER                                 # a run of the CIFAR-10 network on random images
python benchmarks/scaling.py join FOLDER --card h200 --commit HASH      # one file of all that scaling_gpu.sh measured
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddpm_ip.config import load

ROOT = Path(__file__).parent.parent
GRADIENTS = 35_746_307  # parameters of the CIFAR-10 network, each a float32
SIZES = (2**18, 2**22, GRADIENTS, 2**27)  # numbers in an all-reduce
TINY = {
    "data": {"name": "digits"},
    "model": {"in_channels": 1, "dim": 32, "dim_mults": [1, 2], "use_attn": [False, True], "num_groups": 8},
    "train": {"batch_size": 64, "flip": False, "sample_freq": 0, "print_freq": 1, "mixed_precision": "no"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    for name in ("reduce", "losses", "kills"):
        part = parts.add_parser(name)
        part.add_argument("--out", type=Path, required=True)
    parts.choices["kills"].add_argument("--gpus", type=int, required=True)
    parts.choices["kills"].add_argument("--kills", type=int, default=6)
    parts.add_parser("run").add_argument("folder", type=Path)
    part = parts.add_parser("join")
    part.add_argument("folder", type=Path)
    part.add_argument("--card", required=True)
    part.add_argument("--commit", required=True)
    args = parser.parse_args()
    {"reduce": reduce, "losses": losses, "kills": kills, "run": make_run, "join": join}[args.part](args)


def reduce(args: argparse.Namespace) -> None:
    """Replays one all-reduce as the training step has it, of several sizes; the median over 30 replays of each."""
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl", device_id=torch.device("cuda", int(os.environ["LOCAL_RANK"])))
    found = [{"bytes": 4 * n, "ms": _reduced(n)} for n in SIZES]
    if torch.distributed.get_rank() == 0:
        world = torch.distributed.get_world_size()
        for row in found:  # what each GPU sends and receives of a ring, by the time
            row["bus_gb_s"] = 2 * (world - 1) / world * row["bytes"] / row["ms"] / 1e6
        record = {"gpus": world, "environment": _nccl(), "sizes": found}
        args.out.write_text(json.dumps(record, indent=1) + "\n")
        print(json.dumps(record))
    torch.distributed.destroy_process_group()


def _reduced(n: int) -> float:
    flat = torch.randn(n, device="cuda")
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        for _ in range(3):
            torch.distributed.all_reduce(flat, op=torch.distributed.ReduceOp.AVG)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        torch.distributed.all_reduce(flat, op=torch.distributed.ReduceOp.AVG)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(36)]
    for event in events:
        graph.replay()
        event.record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in list(pairwise(events))[5:])


def _nccl() -> dict[str, str]:
    return {k: v for k, v in sorted(os.environ.items()) if k.startswith("NCCL_")}


def losses(args: argparse.Namespace) -> None:
    """The largest difference of the losses of 200 steps to those of one GPU: a tiny network, float32, dropout."""
    home = args.out.parent / "losses"
    config = _tiny(home, n_steps=200, save_freq=200)
    found: dict[str, np.ndarray] = {}
    wheres = [str(n) for n in (1, 2, 4) if n <= torch.cuda.device_count()] + ["nodes"]
    for where in wheres:
        _train(where, config, home / where)
        lines = (home / where / "metrics.jsonl").read_text().splitlines()
        found[where] = np.array([json.loads(line)["loss"] for line in lines])
    apart = {where: float(np.abs(found[where] - found["1"]).max()) for where in wheres[1:]}
    args.out.write_text(json.dumps({"steps": 200, "largest_difference": apart}, indent=1) + "\n")
    print(apart)


def kills(args: argparse.Namespace) -> None:
    """A run that is killed with its launcher again and again ends in the bytes of one that is not."""
    home = args.out.parent / f"kills{args.gpus}"
    config = _tiny(home, n_steps=2000, save_freq=50, deterministic=True)
    _train(str(args.gpus), config, home / "straight")
    chance, at = random.Random(args.gpus), []
    for _ in range(args.kills):
        process = subprocess.Popen(_command(str(args.gpus), config, home / "killed"), cwd=ROOT, start_new_session=True)
        before = _step(home / "killed")
        while _step(home / "killed") == before and process.poll() is None:
            time.sleep(0.05)
        time.sleep(chance.random())
        if process.poll() is None:
            at.append(_step(home / "killed"))
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(1)  # processes of torchrun are in groups of their own: they end as their launcher is gone
        subprocess.run(["pkill", "-9", "-f", str(home / "killed")], check=False)
    _train(str(args.gpus), config, home / "killed")
    same = [_hashes(home / name) for name in ("straight", "killed")]
    record = {"gpus": args.gpus, "killed_after_step": at, "same_bytes": same[0] == same[1], "files": len(same[0])}
    args.out.write_text(json.dumps(record, indent=1) + "\n")
    print(record)


def _step(run: Path) -> int:
    lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
    return max((int(json.loads(line)["step"]) for line in lines if line.endswith("}")), default=0)


def _hashes(run: Path) -> dict[str, str]:
    newest = sorted((run / "ckpt").glob("step*"))[-1]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(newest.glob("*.safetensors"))}


def _tiny(home: Path, **training: Any) -> Path:
    import yaml

    home.mkdir(parents=True)
    tree = {**TINY, "train": {**TINY["train"], **training}}  # type: ignore[dict-item]
    (home / "config.yaml").write_text(yaml.safe_dump(tree))
    return home / "config.yaml"


def _train(where: str, config: Path, run: Path) -> None:
    if where != "nodes":
        subprocess.run(_command(where, config, run), cwd=ROOT, check=True)
        return
    port = _free_port()
    nodes = [
        subprocess.Popen(
            _command("1", config, run, f"--nnodes=2 --node_rank={n} --master_addr=127.0.0.1 --master_port={port}"),
            cwd=ROOT,
            env={**os.environ, **as_node(n)},
        )
        for n in range(2)
    ]
    assert [node.wait() for node in nodes] == [0, 0]


def as_node(n: int) -> dict[str, str]:
    """What makes NCCL take processes of one machine for those of several: it speaks through sockets then."""
    return {
        "CUDA_VISIBLE_DEVICES": str(n),
        "NCCL_HOSTID": f"node{n}",
        "NCCL_SOCKET_IFNAME": "lo",
        "NCCL_IB_DISABLE": "1",
    }


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _command(gpus: str, config: Path, run: Path, launch: str = "--standalone") -> list[str]:
    there = [sys.executable, "-m", "torch.distributed.run", *launch.split(), f"--nproc_per_node={gpus}"]
    again = ["-r", "latest"] if run.exists() else []
    return [*there, "scripts/train_ddpm_ip.py", "-c", str(config), "-e", str(run), *again]


def make_run(args: argparse.Namespace) -> None:
    """One step of the CIFAR-10 network on 50,000 random images: a table of it costs what a real one does."""
    args.folder.mkdir(parents=True)
    rng, images = np.random.default_rng(0), args.folder / "images.npz"
    np.savez(images, images=rng.integers(0, 256, (50_000, 32, 32, 3), dtype=np.uint8))
    config = load(ROOT / "configs" / "ddpm_ip_cifar10.yaml", {}).to_dict()
    config["data"] = {"name": "npz", "root": str(images), "image_size": 32}
    config["train"] |= {"n_steps": 1, "sample_freq": 0}
    import yaml

    (args.folder / "config.yaml").write_text(yaml.safe_dump(config))
    _train("1", args.folder / "config.yaml", args.folder / "run")


def join(args: argparse.Namespace) -> None:
    """What scaling_gpu.sh left in a folder, as one file."""
    found = {group: _found(args.folder, group) for group in (*MEASURED, *TOLD)}
    parts = {group: {name: _short(one) for name, one in found[group].items()} for group in MEASURED if found[group]}
    of = next(one for group in MEASURED for one in found[group].values())
    record: dict[str, Any] = {
        "schema": 1,
        "date": of["date"][:10],
        "made_by": "benchmarks/scaling_gpu.sh, benchmarks/scaling.py join",
        "git": {"commit": args.commit},
        "hardware": {f"{group} {name}": one["hardware"] for group in MEASURED for name, one in found[group].items()},
        "versions": of["versions"],
        **parts,
        **{group: found[group] for group in TOLD if found[group]},
    }
    if (path := args.folder / "seconds.txt").exists():
        pairs = [_pair(line) for line in path.read_text().splitlines()]
        record["seconds"] = {name: [value for one, value in pairs if one == name] for name, _ in pairs}
    if (path := args.folder / "samples.txt").exists():  # one hash, if all numbers of GPUs made the same files
        record["samples"] = sorted({line.split()[0] for line in path.read_text().splitlines()})
    out = ROOT / "benchmarks" / "results" / f"{args.card}_scaling.json"
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(out)


MEASURED = ("speed", "apart", "transport", "evaluate")  # files with the machine and the versions
TOLD = ("reduce", "kills", "losses")


def _found(folder: Path, group: str) -> dict[str, dict[str, Any]]:
    paths = sorted(folder.glob(f"{group}*.json"))
    return {path.stem.removeprefix(group).lstrip("-"): json.loads(path.read_text()) for path in paths}


def _pair(line: str) -> tuple[str, float]:
    name, _, seconds = line.rpartition(" ")
    return name, float(seconds)


def _short(one: dict[str, Any]) -> Any:
    """The rows of ``scripts/bench.py``, or the seconds of ``inception_speed.py``."""
    if "rows" not in one:
        return one["seconds"]
    keys: Sequence[str] = ("task", "batch", "gpus", "images_per_s", "ms", "ms_p10", "ms_p90", "tflops", "error")
    return [{key: row[key] for key in keys} for row in one["rows"]]


if __name__ == "__main__":
    main()
