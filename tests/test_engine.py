"""What Accelerate's configuration says counts where it is recorded, and is refused or left unused where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState
from accelerate.utils import DynamoBackend
from tests.tiny import two_processes

from ddpm_ip.engine import in_turns, refuse_different, start_device, start_engine
from ddpm_ip.errors import ConfigError, DataError, UserError


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Starts an engine in an environment, as in a new process."""

    def launch(precision: Any = None, **environment: str) -> Any:
        AcceleratorState._reset_state(True)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return start_engine(precision)

    yield launch
    AcceleratorState._reset_state(True)


@pytest.mark.parametrize(("said", "precision"), [("bf16", "bf16"), ("BF16", "bf16"), ("no", "no"), ("", "no")])
def test_the_precision_of_the_environment_is_the_one_that_is_used_and_told(
    launched: Any, said: str, precision: str
) -> None:
    assert launched(ACCELERATE_MIXED_PRECISION=said).mixed_precision == precision


@pytest.mark.parametrize("said", ["fp8", "rubbish", "float16"])
def test_a_precision_that_there_is_not_is_refused_rather_than_recorded(launched: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=f"ACCELERATE_MIXED_PRECISION.* {said}: .*no, fp16, bf16"):
        launched(ACCELERATE_MIXED_PRECISION=said)
    assert launched("no", ACCELERATE_MIXED_PRECISION=said).mixed_precision == "no", "the configuration's own counts"


def test_accumulation_of_the_environment_does_not_divide_the_gradients(launched: Any) -> None:
    engine = launched(ACCELERATE_GRADIENT_ACCUMULATION_STEPS="4")
    assert engine.gradient_accumulation_steps == 1


def test_a_compiler_of_the_environment_is_not_used(launched: Any) -> None:
    assert launched(ACCELERATE_DYNAMO_BACKEND="INDUCTOR").state.dynamo_plugin.backend == DynamoBackend.NO


@pytest.mark.parametrize(
    ("variable", "name"), [("DEEPSPEED", "DeepSpeed"), ("FSDP", "FSDP"), ("MEGATRON_LM", "Megatron-LM")]
)
def test_another_engine_is_refused(launched: Any, variable: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"asks for {name} .*accelerate config"):
        launched(**{f"ACCELERATE_USE_{variable}": "true"})
    with pytest.raises(ConfigError, match=name):
        start_device()


@pytest.mark.parametrize(("variable", "value"), [("WORLD_SIZE", "abc"), ("ACCELERATE_USE_CPU", "rubbish")])
def test_an_environment_that_cannot_be_used_is_told(launched: Any, variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot be started as the environment says: .*{value}"):
        launched(**{variable: value})


def test_each_process_prepares_in_its_turn_and_a_failure_of_one_is_every_ones(tmp_path: Path) -> None:
    def together() -> None:
        engine = start_engine("no")
        rank = engine.process_index

        def prepare() -> list[str]:
            (tmp_path / str(rank)).touch()
            return sorted(path.name for path in tmp_path.iterdir())

        assert in_turns(engine, prepare) == ["0", "1"][: rank + 1]

        def fail() -> None:
            if rank:
                raise DataError("images.npz is not there")

        with pytest.raises(UserError, match="^process 1: images.npz" if rank == 0 else "^images.npz is not there"):
            in_turns(engine, fail)
        refuse_different(engine, "run in runs/a", "step 5", {"a": 1})
        with pytest.raises(ConfigError, match=r"same run in runs/a: process 0 .*step 0 \(.*process 1 .*step 1 \("):
            refuse_different(engine, "run in runs/a", f"step {rank}", {"a": rank})

    assert two_processes(together) == [0, 0]
