"""What wandb is asked for; its package is a stand-in."""

from tests.tracking.parts import CONFIG, begun, package

from ddpm_ip.tracking.base import Alert
from ddpm_ip.tracking.wandb import WandB


def test_the_same_run_continues_and_points_have_their_own_step(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    calls = package(monkeypatch, "wandb")
    one = WandB()
    name = one.start(begun(tmp_path / "my-run"), None)
    one.scalars(30, {"train/loss": 0.5})
    one.scalars(20, {"eval/FD": 2.0})  # an evaluation, which comes later than the numbers of later steps
    one.image(30, "samples", tmp_path / "a.png")
    one.alert(Alert("disk", 30, "it is full"))
    one.close()
    asked = {called: (args, settings) for called, args, settings in calls}
    expected = {"project": "ddpm-ip", "id": name, "name": "my-run", "resume": "allow"}
    assert asked["wandb.init"] == ((), expected), "no mode, no entity: those are the environment's"
    assert asked["wandb.init().define_metric"] == (("*",), {"step_metric": "step"})
    assert asked["wandb.config.update"][0] == (CONFIG,)
    assert asked["wandb.Html"] == (("<pre>seed: 1\n</pre>",), {})
    logged = [args[0] for called, args, _ in calls if called == "wandb.init().log"]
    assert logged[1:3] == [{"train/loss": 0.5, "step": 30}, {"eval/FD": 2.0, "step": 20}]
    assert asked["wandb.init().alert"][1] == {"title": "disk", "text": "step 30: it is full", "level": "WARN"}
    assert calls[-1][0] == "wandb.init().finish"
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    assert WandB().start(begun(tmp_path / "my-run", 30), name) == name
    again = [settings for called, _, settings in calls if called == "wandb.init"][1]
    assert (again["id"], again["project"]) == (name, "mine")
