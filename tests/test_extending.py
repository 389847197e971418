"""Every example of docs/extending.md runs as it is, in a namespace of its own; what it claims it asserts itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from ddpm_ip import metric
from ddpm_ip.denoiser import Denoiser
from ddpm_ip.evaluate import metrics
from ddpm_ip.run.row import row_label
from ddpm_ip.sampler import DDIM, AnySampler, walk
from ddpm_ip.sampler.correction import Clip
from ddpm_ip.sampler.graph import Graph
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.schedule import Schedule
from ddpm_ip.variants import ByName

PAGE = Path(__file__).parents[1] / "docs/extending.md"
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^## (.+?)\n.*?^```python\n(.+?)^```$", TEXT, re.DOTALL | re.MULTILINE)
KINDS = {"sampler", "correction", "network", "perturbation", "loss weighting", "time sampler", "data source", "metric"}


def run(code: str) -> dict[str, Any]:
    """Runs an example as a program of its own would, and returns its names."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, str(PAGE), "exec", dont_inherit=True), names)
    return names


@pytest.mark.parametrize("code", [pytest.param(code, id=title) for title, code in EXAMPLES])
def test_an_example_runs_and_proves_what_it_says(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DDPM_IP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    for table in (metric.METRICS, metrics.COMPUTE):  # one example puts a metric of its own into them
        for name in set(table):
            monkeypatch.setitem(table, name, table[name])  # so that they are put back as they were
        monkeypatch.setitem(table, "energy", None)
        del table["energy"]
    assert "assert" in code
    run(code)


def test_every_section_has_one_example() -> None:
    assert [title for title, _ in EXAMPLES] == re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    assert len(EXAMPLES) == TEXT.count("```python\n")
    assert {title.partition(" ")[2] for title, _ in EXAMPLES} >= KINDS


def test_every_kind_is_in_the_table_at_the_top() -> None:
    anchors = re.findall(r"^\| \[.+?\]\(#(.+?)\)", TEXT, re.MULTILINE)
    assert anchors == [title.lower().replace(" ", "-") for title, _ in EXAMPLES]


def test_a_class_in_a_union_can_be_configured() -> None:
    """What the table at the top promises, of the example of a sampler: YAML, checks, and the label of its row."""
    multistep = run(dict(EXAMPLES)["A sampler"])["Multistep"]
    adapter: Any = TypeAdapter(Annotated[AnySampler | multistep, ByName()])
    sampler = adapter.validate_python({"name": "multistep"})
    assert sampler == multistep()
    assert row_label(Sampling(sampler).row()) == "multistep"
    with pytest.raises(ValidationError, match="multistp"):
        adapter.validate_python({"name": "multistp"})


def test_a_graph_of_the_example_s_correction_is_refilled_for_another_setting() -> None:
    """What the page says of ``numbers``: recorded with one knee, the walk is that of another once it is loaded."""
    pytest.importorskip("triton")
    soft_knee = run(dict(EXAMPLES)["A correction"])["SoftKnee"]
    schedule = Schedule()
    denoiser = Denoiser(lambda x, t: 3 * torch.tanh(x), schedule, "pred_x0")
    plan = DDIM().plan(schedule, [900, 500, 100])
    graph = Graph(denoiser, [soft_knee(0.99), Clip()], plan, 4, (1, 8, 8), torch.device("cpu"))
    images = []
    for knee in (0.3, 0.6):
        corrections = [soft_knee(knee), Clip()]
        graph.load(plan, corrections, 0)
        *_, found = graph(torch.arange(4))
        *_, expected = walk(plan, denoiser, 0, torch.arange(4), (1, 8, 8), corrections)
        torch.testing.assert_close(found.xt, expected.xt, atol=1e-5, rtol=1e-5)
        images.append(found.xt.clone())
    assert (images[0] - images[1]).abs().max() > 0.01
