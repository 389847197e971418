"""The table of the benchmark: aligned columns, and ratios of what compares."""

from __future__ import annotations

from typing import Any

from ddpm_ip.bench.table import ratios, table


def row(system: str, rate: float | None = None, ratio: float | None = None, **more: Any) -> dict[str, Any]:
    measured = {"images_per_s": rate, "ms": 12.5, "ms_p10": 12.0, "ms_p90": 130.25, "warmup_s": 3.0}
    rest = {"ratio_to_ours": ratio, "gflop_per_image": 37.3, "tflops": 64.0, "share_of_peak": 0.08, "memory_gib": None}
    base = {"task": "train", "system": system, "ours": system == "ours", "batch": 128, "source": None, "gpus": 1}
    return {**base, "precision": "bf16", **measured, **rest, "error": None, **more}


def test_the_table_is_aligned() -> None:
    memory = {"allocated": 6.7, "reserved": 7.4}
    rows = [row("ours", 10240.0, 1.0, memory_gib=memory), row("diffusers", 983.0, 0.096), row("plain", batch=1024)]
    rows[2]["error"] = "out of memory, and a long reason that must not widen any column"
    title, header, first, second, third, ratio = table(rows).splitlines()
    assert title == "train: images/s"
    for name, values in {"batch": ("128", "128"), "rate": ("10240.0", "983.0"), "GiB": ("6.7/7.4", "-")}.items():
        end = header.index(name) + len(name)
        assert [text[:end].split()[-1] for text in (first, second)] == list(values)
        assert [text[end : end + 1] for text in (header, first, second)] == [" "] * 3
    assert len(header) == len(first) == len(second)
    assert third.split()[:4] == ["plain", "1024", "1", "bf16"]
    assert third.index("out of memory") < len(header)
    assert ratio == "train, batch 128: ours / diffusers: 10.42x"


def test_ratios_keep_sources_apart() -> None:
    rows = [
        row("plain", 1.0, ratio, task="data", source=source) for source, ratio in (("resident", 0.5), ("mapped", 2.0))
    ]
    assert ratios(rows) == [
        "data (resident), batch 128: ours / plain: 2.00x",
        "data (mapped), batch 128: ours / plain: 0.50x",
    ]
