"""What a sweep will take is what its runs take that are still to be trained."""

from collections import namedtuple

from tests.tiny import tree

from ddpm_ip import estimate
from ddpm_ip.estimate import Sizes, disk_of_run, size
from ddpm_ip.sweep.outlook import outlook
from ddpm_ip.sweep.plan import Asked
from ddpm_ip.sweep.stages import Stages


def test_the_runs_that_are_missing_are_told(tmp_path, monkeypatch):
    asked = Asked(tree(), "tiny.yaml", over={"model.dim": [8, 16]}, seeds=(0, 1), table=["--keep_images"])
    stages, trained = Stages(asked, tmp_path), set()
    monkeypatch.setattr(Stages, "is_trained", lambda self, run: run.name in trained)
    sizes = {run.name: Sizes.of(run.config) for run in asked.runs}
    needed = [disk_of_run(run.config, sizes[run.name]) for run in asked.runs]
    (line,) = outlook(asked, stages, 2)
    assert line.startswith("estimate: time told after the first run")
    assert f"; disk {size(sum(needed))} (4 runs with checkpoints of {size(sizes['dim=16,seed=0'].checkpoint)}" in line
    assert "2 at a time" in line
    assert "images of the tables besides" in line
    trained |= {"dim=16,seed=0", "dim=16,seed=1"}
    (line,) = outlook(asked, stages, 1)
    assert f"; disk {size(2 * needed[0])} (2 runs" in line
    written = tmp_path / "dim=8,seed=0" / "ckpt" / "step00000001" / "model.safetensors"
    written.parent.mkdir(parents=True)
    written.write_bytes(b"0" * needed[0])
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(1))
    line, warning = outlook(asked, stages, 1)
    assert f"; disk {size(needed[0])} (2 runs" in line
    assert "make room" in warning
    trained |= set(sizes)
    assert outlook(asked, stages, 1) == []
