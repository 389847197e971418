"""What Accelerate's configuration says counts where it is recorded, and is refused or left unused where it is not."""

from __future__ import annotations

from typing import Any

import pytest
from accelerate.state import AcceleratorState
from accelerate.utils import DynamoBackend

from ddpm_ip.engine import start_device, start_engine
from ddpm_ip.errors import ConfigError


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
