"""A network and a run so small that a test can afford many of them, in this process or in others."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from ddpm_ip.cli import main
from ddpm_ip.config import Config, from_dict
from ddpm_ip.engine import stop_engine
from ddpm_ip.sample.program import SampleOptions
from ddpm_ip.sampler import Ancestral
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.settings import Wanted
from ddpm_ip.train.loop import NO_HOOKS, Hooks, Outcome, train

ROOT = Path(__file__).parents[1]
TRAIN_SCRIPT, SAMPLE_SCRIPT = ROOT / "scripts/train_ddpm_ip.py", ROOT / "scripts/sample_uncond.py"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
GUARD = 300  # seconds after which a process, or a thread, is taken to hang
CORES = sorted(os.sched_getaffinity(0))  # before a test tells the engine another number
FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors", "meta.json", "manifest.json")


def tree(model=None, **settings) -> dict:
    """The plain values of a tiny configuration; ``settings`` are of the section ``train``."""
    network = {"in_channels": 1, "dim": 8, "dim_mults": [1, 2], "use_attn": [False, True]}
    network |= {"num_res_blocks": 1, "num_groups": 4, "dropout": 0.1, **(model or {})}
    run = {"n_steps": 6, "batch_size": 8, "flip": False, "print_freq": 1, "save_freq": 2, "sample_freq": 0}
    run |= {"ema_decay": 0.9, "n_samples": 4, "sample_steps": 2, **settings}
    return {"data": {"name": "digits"}, "model": network, "perturbation": {"name": "input", "gamma": 0.1}, "train": run}


def tiny(model=None, **settings) -> Config:
    return from_dict(tree(model, **settings))


def options(n_samples=20, mode="sample", n_denoise=20, n_progressive=20, **flat) -> SampleOptions:
    """What `ddpm-ip sample` makes of its published options."""
    modes = {key: flat.pop(key) for key in ("n_interpolate", "input_dir") if key in flat}
    names = {"batch_size": "block", "respace_steps": "steps", "respace_type": "spacing"}
    settings = {names.get(key, key): value for key, value in flat.items()}
    if "var_type" in settings:
        settings["sampler"] = Ancestral(settings.pop("var_type"))
    return SampleOptions(n_samples, Sampling(**settings), mode, n_denoise, n_progressive, **modes)


def yaml_file(folder: Path, model=None, **settings) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree(model, **settings)))
    return path


def run(config: Config | Wanted, folder: Path, resume: str | None = None, hooks=NO_HOOKS) -> Outcome:
    """Trains in this process, as if it were a new one."""
    AcceleratorState._reset_state(True)
    return train(config, folder, resume, hooks)


def briefly_trained(folder: Path) -> Path:
    """A run of six steps, on one core: its network is no longer the initial one. For fixtures that many tests share."""
    with pytest.MonkeyPatch.context() as patch:
        one_thread(patch)
        run(tiny(n_steps=6, save_freq=6, optim={"lr": 1e-2}), folder)
    return folder


def with_classes(dropout=0.1, **settings) -> Config:
    """A tiny configuration of a class-conditional model; ``settings`` are of the section ``train``."""
    return from_dict({**tree(**settings), "classes": {"count": 10, "dropout": dropout}})


def briefly_trained_with_classes(folder: Path) -> Path:
    """The same of a class-conditional run of eight steps, with a grid of samples and an evaluation."""
    settings = {"n_steps": 8, "save_freq": 8, "sample_freq": 8, "n_samples": 25, "optim": {"lr": 3e-2}}
    with pytest.MonkeyPatch.context() as patch:
        one_thread(patch)
        run(with_classes(**settings, eval={"every": 8, "n_samples": 20, "steps": 2}), folder)
    return folder


def one_thread(monkeypatch) -> None:
    """The engine takes all cores that it is told of; beside another busy program that makes a tiny network crawl."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    AcceleratorState._reset_state(True)


def own_core() -> int:
    """Of this worker of pytest."""
    return CORES[int(os.environ.get("PYTEST_XDIST_WORKER", "gw-1").removeprefix("gw")) % len(CORES)]


def start(*arguments, cwd: Path = ROOT, stdin: int | None = None) -> subprocess.Popen:
    """``python ARGUMENTS`` on one core, in a process group of its own; its output goes to one pipe."""
    core = own_core()
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        env={k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")},
    )


class Forked:
    """A call in a process of its own that has all imported already, where :func:`start` would load it for seconds.

    What :func:`wait_for` and :func:`finish` read, as of ``start``: its output goes to one pipe; ``sys.exit`` gives its
    exit code.
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        (given, stdin), (stdout, output) = os.pipe(), os.pipe()

        def begin() -> None:
            os.setsid()
            for file, number in ((given, 0), (output, 1), (output, 2)):
                os.dup2(file, number)
            for file in (given, stdin, stdout, output):
                os.close(file)
            sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False)
            call()

        self.pid, self.returncode = forked(begin), None
        os.close(given)
        os.close(output)
        self.stdin, self.stdout = os.fdopen(stdin, "w"), os.fdopen(stdout)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def communicate(self, timeout: float = GUARD) -> tuple[str, None]:
        """The rest of its output, once it ended; a process that hangs is ended by ``signal.alarm``."""
        self.stdin.close()
        with self.stdout:
            output = self.stdout.read()
        self.returncode = ended(self.pid)
        return output, None


def command(*given: Any) -> Forked:
    """``ddpm-ip GIVEN`` in a process that has all imported already."""
    return Forked(lambda: sys.exit(main([str(word) for word in given])))


def wait_for(process: subprocess.Popen | Forked, text: str) -> str:
    """Reads the output of a process up to a line that holds the text, and returns that."""
    guard, seen = threading.Timer(GUARD, end_group, [process]), []
    guard.start()
    try:
        for line in process.stdout:
            seen.append(line)
            if text in line:
                return line
    finally:
        guard.cancel()
    raise AssertionError(f"it ended, and never said {text!r}:\n{''.join(seen)}")


def finish(process: subprocess.Popen | Forked) -> tuple[int, str]:
    """Exit code and output."""
    try:
        output, _ = process.communicate(timeout=GUARD)
    except subprocess.TimeoutExpired:
        end_group(process)
        raise
    return process.returncode, output


def end_group(process: subprocess.Popen | Forked) -> None:
    """Kills a process of :func:`start` and those that it started."""
    os.killpg(process.pid, signal.SIGKILL)


def forked(call: Callable[[], Any]) -> int:
    """Begins a process of its own that makes a call and has all imported already; its id, for :func:`ended`.

    Like one of :func:`start` it has one core and reacts to signals as a fresh one; an exception is exit code 1, but
    that of ``sys.exit`` is what it says.
    """
    import torch._dynamo
    import torch.utils.tensorboard  # noqa: F401  # so that they are imported once, and not in every process

    sys.stdout.flush()
    if process := os.fork():
        return process
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.alarm(GUARD)
        os.sched_setaffinity(0, {own_core()})
        call()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(process: int) -> int:
    """Waits for a process of :func:`forked`: its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def alone(call: Callable[[], Any]) -> int:
    """Makes a call in a process of its own; see :func:`forked` and :func:`ended`."""
    return ended(forked(call))


def two_processes(call: Callable[[], Any]) -> list[int]:
    """Makes a call in two processes that train or sample together, as a launcher would start them; the exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def take_part(rank: int) -> None:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
        AcceleratorState._reset_state(True)
        call()
        stop_engine()

    return [ended(process) for process in [forked(lambda rank=rank: take_part(rank)) for rank in (0, 1)]]


def command_of_two(*given: str | Path) -> list[int]:
    """``ddpm-ip GIVEN`` in two processes, for what the command does there; see :func:`two_processes`."""

    return two_processes(lambda: sys.exit(main([str(word) for word in given])))


class Crash(Exception):
    """What no program expects."""


def crash_at(step: int) -> Hooks:
    def hook(done: int) -> None:
        if done == step:
            raise Crash

    return Hooks(on_step=hook)


def stop_at(step: int, number: int = signal.SIGTERM) -> Hooks:
    return Hooks(on_step=lambda done: os.kill(os.getpid(), number) if done == step else None)


def step_folder(folder: Path, step: int) -> Path:
    return folder / "ckpt" / f"step{step:08d}"


def steps_saved(folder: Path) -> list[int]:
    return sorted(int(p.name.removeprefix("step")) for p in (folder / "ckpt").glob("step*"))


def meta(folder: Path, step: int) -> dict:
    return json.loads((step_folder(folder, step) / "meta.json").read_text())


def weights(folder: Path, step: int, name: str = "model") -> dict[str, torch.Tensor]:
    return load_file(step_folder(folder, step) / f"{name}.safetensors")


def assert_same_state(a: Path, b: Path, step: int, kept: str = "ckpt") -> None:
    """Every tensor of two runs' checkpoints is the same, bit for bit, and so are the running sums."""
    for name in ("model", "ema", "optimizer"):
        first, second = (load_file(f / kept / f"step{step:08d}" / f"{name}.safetensors") for f in (a, b))
        assert first
        assert first.keys() == second.keys()
        assert [k for k in first if not torch.equal(first[k], second[k])] == [], name
    metas = [json.loads((f / kept / f"step{step:08d}" / "meta.json").read_text()) for f in (a, b)]
    assert [metas[0][k] for k in ("step", "sums", "count")] == [metas[1][k] for k in ("step", "sums", "count")]


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


def numbers(folder: Path) -> list[tuple]:
    """Step, loss, gradient norm and learning rate of every line of the log of a run."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [tuple(line[k] for k in ("step", "loss", "grad_norm", "lr")) for line in lines]


def manifest_of(files: dict[str, bytes]) -> bytes:
    """The manifest of a checkpoint that fits whatever its files are."""
    entries = {f: (len(d), hashlib.sha256(d).hexdigest()) for f, d in files.items() if f != "manifest.json"}
    return json.dumps({f: {"bytes": n, "sha256": digest} for f, (n, digest) in entries.items()}).encode()


def resign(path: Path) -> None:
    """Makes the manifest of a checkpoint agree with its files, as somebody would who tampers with them."""
    files = {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
    (path / "manifest.json").write_bytes(manifest_of(files))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def flip(path: Path) -> None:
    """Damages one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    """Leaves nothing in a file."""
    path.write_bytes(b"")
