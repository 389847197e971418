"""Schedulers of diffusers and this program's section ``diffusion``: T, the betas, what the network predicts.

What a scheduler says only about sampling becomes sentences for people: the images of an imported network are made as
the section ``sampling`` says.

Source: scheduler_config.json of diffusers' DDPMScheduler and its kin, as of version 0.42.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddpm_ip.errors import CheckpointError
from ddpm_ip.plain import quoted, shown

# What they take where the file does not say: the same for all schedulers here.
DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
}
KNOWN = (
    "DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler", "DEISMultistepScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
)  # fmt: skip
BETAS = {"linear": "linear", "scaled_linear": "quad", "squaredcos_cap_v2": "cosine"}
PREDICTIONS = {"epsilon": "pred_eps", "sample": "pred_x0", "v_prediction": "pred_v"}
VARIANCES = {"fixed_small": "fixed_small", "fixed_small_log": "fixed_small", "fixed_large": "fixed_large"}
VARIANCES |= {"learned_range": "learned_range"}
SPACINGS = {"linspace": "uniform-linspace", "leading": "uniform-leading", "trailing": "uniform-trailing"}


def section_of(scheduler: Mapping[str, Any], learned: bool, where: str) -> tuple[dict[str, Any], list[str], list[str]]:
    """The section ``diffusion`` of a scheduler.

    Args:
        scheduler: the content of scheduler_config.json.
        learned: whether the network puts out twice the channels of an image.
        where: the file, for messages.

    Returns:
        The section, what was assumed, and what it says of sampling (:class:`~ddpm_ip.interop.base.Imported`).

    Raises:
        CheckpointError: something in it cannot be had here; names the key.
    """
    theirs = {**DEFAULTS, **scheduler}
    name = theirs.get("_class_name", "DDPMScheduler")
    if name not in KNOWN:
        raise _refused(where, "_class_name", name, f"known are {', '.join(KNOWN)}")
    for key in ("trained_betas", "rescale_betas_zero_snr"):
        if theirs.get(key):
            raise _refused(where, key, theirs[key], "the betas must be those of a beta_schedule")
    schedule, prediction = theirs["beta_schedule"], theirs["prediction_type"]
    for key, value, known in (("beta_schedule", schedule, BETAS), ("prediction_type", prediction, PREDICTIONS)):
        if not isinstance(value, str) or value not in known:
            raise _refused(where, key, value, f"known are {', '.join(known)}")
    ends = theirs["beta_start"], theirs["beta_end"]
    for key, value, kinds in (
        ("num_train_timesteps", theirs["num_train_timesteps"], (int,)),
        *zip(("beta_start", "beta_end"), ends, ((int, float),) * 2, strict=True),
    ):
        if type(value) not in kinds or not 0 < value < 2**31:
            raise _refused(where, key, value, "a positive number is needed")
    var_type, assumed = _variance(theirs, name, learned, where)
    section = {
        "total_steps": theirs["num_train_timesteps"],
        "beta_schedule": "const" if schedule == "linear" and ends[0] == ends[1] else BETAS[schedule],
        "beta_start": ends[0],
        "beta_end": ends[1],
        "objective": PREDICTIONS[prediction],
        "var_type": var_type,
    }
    return section, assumed, _of_sampling(theirs)


def config_of(diffusion: Mapping[str, Any], variance: str, clip: str, spacing: object) -> dict[str, Any]:
    """The scheduler_config.json of the DDPMScheduler that walks as ancestral sampling does here.

    Args:
        diffusion: the section, plain values.
        variance: of the reverse process: fixed_small, fixed_large or learned_range.
        clip: ``sampling.clip``.
        spacing: ``sampling.spacing``; one that diffusers does not know becomes ``linspace``.
    """
    schedule = diffusion["beta_schedule"]
    constant = schedule == "const"
    theirs = {ours: name for name, ours in SPACINGS.items()} | {"uniform": "leading"}
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": diffusion["total_steps"],
        "beta_start": diffusion["beta_end" if constant else "beta_start"],
        "beta_end": diffusion["beta_end"],
        "beta_schedule": "linear" if constant else next(name for name, ours in BETAS.items() if ours == schedule),
        "trained_betas": None,
        "variance_type": variance,
        "clip_sample": clip != "none",
        "clip_sample_range": 1.0,
        "prediction_type": next(name for name, ours in PREDICTIONS.items() if ours == diffusion["objective"]),
        "thresholding": False,
        "timestep_spacing": theirs.get(str(spacing), "linspace"),
        "steps_offset": 0,
        "rescale_betas_zero_snr": False,
    }


def _variance(theirs: Mapping[str, Any], name: str, learned: bool, where: str) -> tuple[str, list[str]]:
    given = theirs.get("variance_type")
    if given is None and name == "DDPMScheduler":
        given = "fixed_small"  # its default
    if given is None:
        return ("learned_range", []) if learned else (
            "fixed_small",
            [f"{name} says no variance of ancestral sampling: fixed_small was taken (--var_type chooses another)"],
        )  # fmt: skip
    if not isinstance(given, str) or given not in VARIANCES:
        raise _refused(where, "variance_type", given, f"known are {', '.join(VARIANCES)}")
    if learned != (given == "learned_range"):
        has = "twice the channels of an image" if learned else "the channels of an image"
        raise _refused(where, "variance_type", given, f"the network puts out {has} (out_channels in its config.json)")
    return VARIANCES[given], []


def _of_sampling(theirs: Mapping[str, Any]) -> list[str]:
    """What a scheduler says about sampling that this program does differently unless asked."""
    notes = []
    if theirs.get("thresholding"):
        notes.append("its scheduler thresholds x_0 dynamically: --corrections dynamic_thresholding does so here")
    elif theirs.get("clip_sample", True) is False:
        notes.append("its scheduler does not clip x_0: --clip none does so here")
    elif theirs.get("clip_sample_range", 1.0) != 1.0:
        notes.append(f"its scheduler clips x_0 to ±{shown(theirs['clip_sample_range'])}; here it is clipped to ±1")
    spacing = theirs.get("timestep_spacing")
    if isinstance(spacing, str) and SPACINGS.get(spacing) not in (None, "uniform-linspace"):
        notes.append(f"its scheduler has timestep_spacing {spacing}: at few steps give --spacing {SPACINGS[spacing]}")
    if theirs.get("steps_offset"):
        notes.append(f"its scheduler has steps_offset {shown(theirs['steps_offset'])}, which plays no part here")
    return notes


def _refused(where: str, key: str, value: object, why: str) -> CheckpointError:
    return CheckpointError(f"{where}: {shown(key)} is {quoted(value)}, which cannot be imported: {why}")
