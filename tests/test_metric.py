"""A metric is described once: its names lead back to it, and each has a function that computes it."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

import ddpm_ip
from ddpm_ip.data.imageset import from_arrays
from ddpm_ip.errors import ConfigError
from ddpm_ip.evaluate.evaluate import Evaluator, evaluate
from ddpm_ip.evaluate.features import Pixels
from ddpm_ip.evaluate.metrics import COMPUTE, Features
from ddpm_ip.metric import METRICS, Metric, Value, chosen, find, higher_is_better, usual
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.run.record import Evaluation
from ddpm_ip.train.monitor import Watch


def test_each_metric_has_its_function_and_no_function_is_left_over() -> None:
    assert COMPUTE.keys() == METRICS.keys()
    assert all(name == metric.name for name, metric in METRICS.items())


@pytest.mark.parametrize("extractor", [None, "pixels", "C56", "dinov2-vit-l-14", "my_own"])
def test_every_name_leads_back_to_its_metric(extractor: str | None) -> None:
    for metric in METRICS.values():
        values = [value for value in metric.values for _ in range(2 if metric.parts else 1)]
        for value, name in zip(values, metric.names(extractor), strict=True):
            found = find(name)
            assert found is not None
            assert found.metric is metric, name
            assert found.value is value
            assert found.extractor == extractor
            assert found.deviation == name.endswith("_std")


@pytest.mark.parametrize(
    ("name", "metric", "extractor", "deviation"),
    [
        ("FID", "fid", None, False),
        ("FD-pixels", "fid", "pixels", False),
        ("sFD-x", "sfid", "x", False),
        ("IS_std", "isc", None, True),
        ("CS-C56_std", "isc", "C56", True),
        ("KD-a-b_c", "kid", "a-b_c", False),
        ("precision", "prc", None, False),
        ("recall-mine", "prc", "mine", False),
        ("FD-ends_std", "fid", "ends_std", False),  # a Fréchet distance has no deviation
        ("fid", "fid", None, False),
    ],
)
def test_what_names_mean(name: str, metric: str, extractor: str | None, deviation: bool) -> None:
    found = find(name)
    assert found is not None
    assert (found.metric.name, found.extractor, found.deviation) == (metric, extractor, deviation)


@pytest.mark.parametrize("name", ["", "loss", "FD", "CS", "novel-pixels", "-pixels", "_std", "-"])
def test_other_names_mean_no_metric(name: str) -> None:
    assert find(name) is None
    assert higher_is_better(name) is None


@pytest.mark.parametrize(
    ("name", "higher"),
    [("FID", False), ("sFD-x", False), ("KID", False), ("IS", True), ("CS-x", True), ("precision-x", True)],
)
def test_which_way_is_better(name: str, higher: bool) -> None:
    assert higher_is_better(name) is higher


def test_only_the_inception_gives_an_fid_and_the_words_say_so() -> None:
    there, elsewhere = find("FID"), find("FD-C56")
    assert there is not None
    assert elsewhere is not None
    assert "Inception-v3" in there.what
    assert "not FID" not in there.limits
    assert "CIFAR-10 classifier" in elsewhere.what
    assert "It is not FID, and is not comparable with any published FID." in elsewhere.limits
    assert METRICS["fid"].names("inception") == ("FD-inception",)


def mean_distance(fake: Features, real: Features, device: torch.device) -> tuple[float, ...]:
    """What a new metric may be."""
    return (float(np.abs(fake.moments["pool"].mean - real.moments["pool"].mean).max()),)


def test_a_new_metric_is_an_entry_and_a_function(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every other place learns of it: evaluation, the warnings' direction, what may stand side by side, the words."""
    monkeypatch.setenv("DDPM_IP_CACHE", str(tmp_path))
    value = Value("ITD", "TD", True, "The largest difference of a mean.", "It is a toy.")
    monkeypatch.setitem(METRICS, "td", Metric("td", (value,), features="pool", fewest=5, rows=False, reference=True))
    monkeypatch.setitem(COMPUTE, "td", mean_distance)
    fake, real = (np.full((6, 1, 2, 2), tone, dtype=np.uint8) for tone in (51, 102))
    reference = from_arrays(real, None, "real", 2)
    cpu = torch.device("cpu")
    found = evaluate([fake], reference, extractor=Pixels(cpu), metrics=["td", "fid"], device=cpu)
    assert list(found.values) == ["TD-pixels", "FD-pixels"]
    assert found.values["TD-pixels"] == pytest.approx(0.2)
    assert found.protocol["metrics"] == ["fid", "td"]
    with pytest.raises(ConfigError, match="td needs at least 5 images, and there are 4"):
        Evaluator(Pixels(cpu), ["td"], cpu).check(reference, 4)
    saved: list[int] = []
    for step, number in enumerate((1.0, 3.0, 2.0)):
        one = Evaluation({"TD-pixels": number}, found.protocol, []).to_dict()
        Watch(RunFolder(tmp_path), step).note(step, one, lambda step=step: saved.append(step) or True)  # type: ignore[misc]
        (tmp_path / "best" / f"step{step:08d}").mkdir(parents=True, exist_ok=True)
    assert saved == [0, 1]
    assert "The largest difference of a mean. The features are the values of the pixels" in find("TD-pixels").what  # type: ignore[union-attr]


def test_metrics_are_chosen_by_name() -> None:
    assert chosen(["kid", "fid", "kid"]) == ["kid", "fid"]
    assert (usual("inception"), usual("pixels")) == (("fid", "isc"), ("fid",))
    for wrong, word in ((["fid", "fd"], "got fd"), ([], "got none")):
        with pytest.raises(ConfigError, match=word):
            chosen(wrong)


def test_nothing_else_knows_names_of_metrics() -> None:
    """But for what computes them and the default of a configuration ("precision" is also that of arithmetic)."""
    package = Path(ddpm_ip.__file__).parent
    names = {*METRICS, *(word for m in METRICS.values() for v in m.values for word in (v.inception, v.other))}
    names -= {"precision"}
    allowed = {"metric.py": names, "evaluate/metrics.py": {*METRICS}, "sections.py": {"fid"}}
    for path in package.rglob("*.py"):
        constants = (n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Constant))
        texts = {node.value for node in constants if isinstance(node.value, str)}
        known = {text for text in texts if text.rstrip("-_") in names}
        assert known <= allowed.get(str(path.relative_to(package)), set()), path
