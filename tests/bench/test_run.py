"""The benchmark: what a row says, what is written when, and that a failed row does not end the run."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import ROOT, TORCHRUN, finish, start, tiny, yaml_file

from ddpm_ip.bench import measure, ours, run
from ddpm_ip.bench.measure import Plan
from ddpm_ip.bench.run import BenchOptions, bench
from ddpm_ip.cli import main
from ddpm_ip.config import from_dict
from ddpm_ip.errors import ConfigError

KEYS = {
    "task", "system", "ours", "batch", "source", "gpus", "gpu", "precision", "images_per_s", "ratio_to_ours", "ms",
    "ms_p10", "ms_p90", "gflop_per_image", "tflops", "share_of_peak", "memory_gib", "warmup_s", "error",
}  # fmt: skip
BENCH_SCRIPT = ROOT / "scripts/bench.py"
CIFAR = {"data": {"name": "cifar10"}}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little to measure."""
    monkeypatch.setattr(run, "IMAGES", 64)
    monkeypatch.setattr(run, "EVALUATIONS", 2)
    monkeypatch.setattr(ours, "WORKERS", 1)
    monkeypatch.setitem(measure.MATMUL, "cpu", (64, torch.float32))


def numbers(row: dict[str, Any]) -> list[float]:
    return [value for value in row.values() if isinstance(value, (int, float))]


def test_every_task_and_system_gives_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "bench.json"
    assert main(["bench", "-c", str(yaml_file(tmp_path)), "--batch", "8", "4", "--steps", "2", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert record.keys() == {"schema", "date", "hardware", "versions", "git", "command", "config", "peak", "rows"}
    assert record["peak"]["matmul_tflops"] > 0
    assert record["config"]["image_size"] == 8
    assert {"torch", "diffusers"} <= record["versions"].keys()
    rows = record["rows"]
    systems = ["ours", "plain", "diffusers"]
    expected = [(task, system, batch) for task in ("train", "sample") for batch in (4, 8) for system in systems]
    expected += [("data", system, batch) for batch in (4, 8) for system in ("ours", "plain") for _ in range(2)]
    assert [(row["task"], row["system"], row["batch"]) for row in rows] == expected
    for row in rows:
        assert row.keys() == KEYS
        assert row["error"] is None
        assert row["ours"] == (row["system"] == "ours")
        assert row["gpus"] == 1
        assert all(math.isfinite(value) and value >= 0 for value in numbers(row))
        assert row["ms_p10"] <= row["ms_p90"]
        assert row["task"] == "data" or row["ms_p10"] <= row["ms"] <= row["ms_p90"]
        assert row["images_per_s"] == pytest.approx(1000 * row["batch"] / row["ms"])
        assert (row["tflops"] is None) == (row["task"] == "data")
        assert row["source"] in (("resident", "mapped") if row["task"] == "data" else (None,))
    assert [row["ratio_to_ours"] for row in rows if row["ours"]] == [1.0] * 8
    shown = capsys.readouterr().out
    assert "ours / diffusers: " in shown
    assert str(out) in shown


def test_the_file_is_whole_after_each_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read back when the next row begins, and after a row that kills the run."""
    seen, attempt = [], run._attempt
    out = tmp_path / "bench.json"

    def look(*args: Any) -> Any:
        seen.append(len(json.loads(out.read_text())["rows"]) if out.exists() else None)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return attempt(*args)

    monkeypatch.setattr(run, "_attempt", look)
    with pytest.raises(KeyboardInterrupt):
        bench(tiny(), BenchOptions(("train",), (4,), steps=1, out=out))
    assert seen == [None, 1, 2]
    assert [row["system"] for row in json.loads(out.read_text())["rows"]] == ["ours", "plain"]
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


@pytest.mark.parametrize(
    ("failure", "message", "code"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB"), "out of memory", 0),
        (RuntimeError("a kernel\nfailed"), "RuntimeError: a kernel failed", 1),
    ],
)
def test_a_failed_row_says_so_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    failure: Exception, message: str, code: int,
) -> None:  # fmt: skip
    def fail(*args: Any) -> Callable[[], object]:
        raise failure

    monkeypatch.setattr(ours, "train", fail)
    out = tmp_path / "bench.json"
    given = ["--batch", "4", "--against", "diffusers", "--steps", "1", "--out", str(out)]
    assert main(["bench", "train", "-c", str(yaml_file(tmp_path)), *given]) == code
    failed, after = json.loads(out.read_text())["rows"]
    assert failed["error"] == message
    assert failed.keys() == after.keys() == KEYS
    assert failed["images_per_s"] is None
    assert after["error"] is None
    assert after["images_per_s"] > 0
    assert after["ratio_to_ours"] is None
    assert f"  {message}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["trian"], "the task must be one of train, sample, data, got 'trian'"),
        (["train", "--against", "plain,xyz"], "--against must be one of plain, diffusers, got 'xyz'"),
        (["--batch", "0"], "--batch_size must be at least 1, got 0"),
        (["--steps", "0"], "--steps must be at least 1, got 0"),
        (["--train.batchsize", "8"], "did you mean batch_size?"),
        (["--train.batch_size", "8", "trian"], "the task must be one of train, sample, data, got 'trian'"),
        (["--against", "plain", "xyz"], "--against must be one of plain, diffusers, got 'xyz'"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    assert main(["bench", *given, "--out", str(tmp_path / "bench.json")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_missing_diffusers_is_told_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ConfigError, match="pip install diffusers"):
        bench(tiny(), BenchOptions(("train",), (4,)))


def test_without_a_config_it_is_the_cifar10_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(run, "bench", lambda config, options: asked.extend((config, options)) or [])
    assert main(["bench", "sample", "data", "--against", "none", "--data.image_size", "64"]) == 0
    config, options = asked
    assert (config.model, config.data.image_size) == (from_dict(CIFAR).model, 64)
    assert config.perturbation.name == "input"
    assert (options.tasks, tuple(options.against), options.batches) == (["sample", "data"], (), None)


def test_the_precision_of_a_row() -> None:
    def precision(system: str, task: str = "train", device: str = "cuda", given: str | None = None) -> str:
        shared = run.Bench(tiny(mixed_precision=given), BenchOptions(), {}, (1, 3), {}, torch.device(device), 1)
        return run._precision(shared, run.Case(task, system, 8))

    assert [precision(system) for system in ("ours", "plain", "diffusers")] == ["bf16", "no", "bf16"]
    assert [precision(system, device="cpu") for system in ("ours", "plain", "diffusers")] == ["no"] * 3
    assert [precision(system, given="fp16") for system in ("ours", "plain", "diffusers")] == ["fp16"] * 3
    assert precision("diffusers", "sample", given="bf16") == "no"


def test_the_plan_of_a_row() -> None:
    def plan(task: str, batch: int, device: str = "cuda", steps: int | None = None) -> Plan:
        shared = run.Bench(tiny(), BenchOptions(steps=steps), {}, (1, 3), {}, torch.device(device), 1)
        return run._plan(shared, run.Case(task, "ours", batch))

    assert [plan("train", batch) for batch in (128, 1024)] == [Plan(5, 30), Plan(5, 15)]
    assert plan("train", 16, "cpu") == Plan(2, 5)
    assert plan("train", 1024, steps=7) == Plan(5, 7)
    assert plan("sample", 128) == Plan(1, 3)


def test_the_default_file_stands_with_the_other_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cpu = torch.device("cpu")
    assert run.output(None, cpu).match("bench-cpu-20??-??-??-??????.json")
    assert run.output(None, cpu).parent == Path()
    (tmp_path / "benchmarks/results").mkdir(parents=True)
    assert run.output(None, cpu).parent == Path("benchmarks/results")
    assert run.output(tmp_path, cpu).parent == tmp_path
    assert run.output(tmp_path / "new.json", cpu) == tmp_path / "new.json"


WORKER = """
import runpy, sys
import torch
from ddpm_ip.bench import measure, ours, run

run.IMAGES, run.EVALUATIONS, ours.WORKERS, measure.MATMUL["cpu"] = 64, 2, 1, (64, torch.float32)
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


def test_two_processes_share_a_batch(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    (tmp_path / "worker.py").write_text(WORKER)
    given = ["train", "sample", "-c", yaml_file(tmp_path), "--batch", "8", "--steps", "1", "--out", out]
    code, output = finish(start(*TORCHRUN, tmp_path / "worker.py", BENCH_SCRIPT, *given))
    assert code == 0, output
    rows = json.loads(out.read_text())["rows"]
    assert [row["gpus"] for row in rows] == [2] * 6
    assert not any(row["error"] for row in rows)
    assert output.count("train: images/s\n") == 1


def test_a_batch_that_the_processes_cannot_share() -> None:
    device = torch.device("cpu")
    with pytest.raises(ConfigError, match="--batch_size 7 is not divisible by the 2 processes"):
        run._check(run._cases(BenchOptions(batches=(8, 7)), device), device, 2)
