"""What trackio is asked for; its package is a stand-in."""

from tests.tracking.parts import begun, package

from ddpm_ip.tracking.base import Alert
from ddpm_ip.tracking.trackio import Trackio


def test_the_same_run_continues_under_a_name_that_no_other_has(tmp_path, monkeypatch):
    calls = package(monkeypatch, "trackio")
    one = Trackio()
    name = one.start(begun(tmp_path / "my-run"), None)
    assert name.startswith("my-run-")
    assert name != Trackio().start(begun(tmp_path / "else" / "my-run"), None)
    one.scalars(30, {"train/loss": 0.5})
    one.alert(Alert("disk", 30, "it is full"))
    one.close()
    settings = calls[0][2]
    assert calls[0][0] == "trackio.init"
    assert {"project": "ddpm-ip", "name": name, "resume": "allow"}.items() <= settings.items()
    assert settings["config"] == {"seed": 1, "train.n_steps": 4, "train.ema_power": "None"}
    logged = [(args[0], kept) for called, args, kept in calls if called == "trackio.init().log"]
    assert logged[-1] == ({"train/loss": 0.5}, {"step": 30})
    alerts = [kept for called, _, kept in calls if called == "trackio.init().alert"]
    assert alerts == [{"title": "disk", "text": "it is full", "step": 30}]
    assert Trackio().start(begun(tmp_path / "my-run", 30), name) == name
    assert [kept["name"] for called, _, kept in calls if called == "trackio.init"][-1] == name
