"""What MLflow is asked for; its package is a stand-in."""

from types import SimpleNamespace

from tests.tracking.parts import begun, package

from ddpm_ip.tracking.base import Alert
from ddpm_ip.tracking.mlflow import MLflow


def mlflow(monkeypatch):
    """A stand-in for the package; gives the list of what is called, and of the runs that are started."""
    started = []
    limits = SimpleNamespace(MAX_PARAM_VAL_LENGTH=500, MAX_PARAMS_TAGS_PER_BATCH=100)
    run = SimpleNamespace(info=SimpleNamespace(run_id="theirs"))
    calls = package(
        monkeypatch,
        "mlflow",
        utils=SimpleNamespace(validation=limits),
        search_experiments=lambda **_: [],
        start_run=lambda **settings: started.append(settings) or run,
    )
    return calls, started


def test_the_same_run_continues_and_its_parameters_are_written_once(tmp_path, monkeypatch):
    for variable in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TAGS", "MLFLOW_NESTED_RUN"):
        monkeypatch.delenv(variable, raising=False)
    calls, started = mlflow(monkeypatch)
    one = MLflow()
    assert one.start(begun(tmp_path / "my-run"), None) == "theirs"
    one.scalars(30, {"eval/KID x 10^3": 2.0})
    one.alert(Alert("disk", 30, "it is full"))
    one.close()
    asked = {called: (args, settings) for called, args, settings in calls}
    assert asked["mlflow.create_experiment"][1]["name"] == "ddpm-ip"
    assert asked["mlflow.log_params"][0] == ({"seed": 1, "train.n_steps": 4, "train.ema_power": "None"},)
    assert asked["mlflow.log_text"][0] == ("seed: 1\n", "config/step00000000.yaml")
    assert asked["mlflow.log_metrics"] == (({"eval/KID x 10_3": 2.0},), {"step": 30})
    assert asked["mlflow.set_tag"][0] == ("alert.disk", "step 30: it is full")
    assert calls[-1][0] == "mlflow.end_run"
    calls.clear()
    MLflow().start(begun(tmp_path / "my-run", 30), "theirs")
    assert [(one["run_id"], one["run_name"]) for one in started] == [(None, "my-run"), ("theirs", "my-run")]
    assert [called for called, *_ in calls if called == "mlflow.log_params"] == []
    assert calls[-1][1] == ("seed: 1\n", "config/step00000030.yaml")
