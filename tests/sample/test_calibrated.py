"""The correction ``auto``: what a calibration beside the weights holds, and nothing else, in its place."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.tiny import contents, tiny, two_processes

import ddpm_ip as ip
from ddpm_ip.cli import main
from ddpm_ip.config import from_dict
from ddpm_ip.errors import ConfigError
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.record import records
from ddpm_ip.run.weights import find_weights
from ddpm_ip.sample import calibrated
from ddpm_ip.sample.program import SampleOptions, sample
from ddpm_ip.sampler.facts import facts_of
from ddpm_ip.sampler.sampling import Sampling

CHAIN = [{"name": "epsilon_scaling", "times": [0, 500], "scales": [0.99, 1.02]}, {"name": "dcw", "low": 0.01}]
TYPED = ["epsilon_scaling,times=0/500,scales=0.99/1.02", "dcw,low=0.01"]
OBJECTS = (ip.EpsilonScaling(times=(0, 500), scales=(0.99, 1.02)), ip.DCW(low=0.01))
DDIM = Sampling(ip.DDIM(), steps=3)
FOUND = {"corrections": CHAIN, "chosen": "a table", "why": "It is nearest."}


@pytest.fixture
def weights(trained, tmp_path):
    """A run that may be written to."""
    return shutil.copytree(trained, tmp_path / "run")


def keep(weights, sampling=DDIM, **found):
    of = find_weights(weights)
    return calibrated.keep(sampling, tiny(), of.sha256, Path(of.origin), {**FOUND, **found})


def command(weights, folder, *more, steps=("--sampler", "ddim", "--steps", "3")):
    given = ["--weights", str(weights), "--n_samples", "4", "--batch_size", "2", "--save_dir", str(folder)]
    return main(["sample", *given, *steps, *more])


def pictures(folder):
    return {name: data for name, data in contents(folder).items() if name[0].isdigit()}


def changed(file, **keys):
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


# --- what is used ----------------------------------------------------------------------------------------------------


def test_the_images_are_those_of_the_chain_bit_for_bit(weights, tmp_path, capsys):
    """By the command, typed by hand, in Python as a word and as an object, and as two processes make them."""
    file = keep(weights)
    assert file.parent == weights
    assert command(weights, tmp_path / "a", "--corrections", "auto") == 0
    said = capsys.readouterr().err
    assert f"{file}: epsilon_scaling+dcw. It is nearest." in said
    assert command(weights, tmp_path / "b", "--corrections", *TYPED) == 0
    assert command(weights, tmp_path / "c") == 0
    made = pictures(tmp_path / "a")
    assert (len(made), made) == (4, pictures(tmp_path / "b"))
    assert made != pictures(tmp_path / "c")
    run = ip.load(weights)
    given = {"sampler": ip.DDIM(), "steps": 3, "block": 2}
    for name, auto in (("d", "auto"), ("e", ["auto"]), ("f", [ip.Auto()])):
        samples = run.sample(4, corrections=auto, **given)
        assert samples.evaluations == 3
        samples.save(tmp_path / name)
        assert contents(tmp_path / name) == contents(tmp_path / "a")
    assert two_processes(lambda: sample_auto(weights, tmp_path / "g")) == [0, 0]
    assert contents(tmp_path / "g") == contents(tmp_path / "a")


def sample_auto(weights, folder):
    sample(tiny(), weights, folder, SampleOptions(4, replace(DDIM, corrections=(ip.Auto(),), block=2)))


def test_the_facts_name_the_calibration_and_not_the_chain(weights, tmp_path):
    keep(weights)
    sample_auto(weights, tmp_path / "a")
    facts = json.loads((tmp_path / "a" / "sampling.json").read_text())
    assert facts["corrections"] == [{"name": "auto", "calibration": ip.Auto(OBJECTS).calibration}]
    assert ip.Auto(OBJECTS).calibration.startswith("sha256:")
    keep(weights, corrections=CHAIN[:1])
    with pytest.raises(ConfigError, match=r"(?s)corrections.*auto.*sha256:"):
        sample_auto(weights, tmp_path / "a")  # no mixture of two calibrations


def test_what_is_measured_of_the_images_says_it(weights, tmp_path, capsys):
    """In the evaluation, which other commands read, and in the card of what is exported."""
    keep(weights)
    sample_auto(weights, tmp_path / "a")
    given = [str(tmp_path / "a"), "--reference", "digits", "--extractor", "pixels"]
    assert main(["evaluate", *given, "--out", str(weights / "evaluation.json")]) == 0
    (evaluation,) = json.loads((weights / "evaluation.json").read_text())
    assert evaluation["protocol"]["sampling"]["corrections"] == [facts_of(ip.Auto(OBJECTS))]
    (number,) = {record.row for record in records(evaluation, "it")}
    assert number == "ddim,eta=0+auto"
    assert main(["export", str(weights), "--out", str(tmp_path / "b"), "--format", "safetensors"]) == 0
    assert "| ddim,eta=0+auto |" in (tmp_path / "b" / "README.md").read_text()


def test_processes_refuse_together(weights, tmp_path):
    def refused():
        with pytest.raises(calibrated.NotCalibrated):
            sample_auto(weights, tmp_path / "a")

    assert two_processes(refused) == [0, 0]
    assert not (tmp_path / "a").exists()


def test_a_calibration_that_corrects_nothing_is_one(weights, tmp_path, capsys):
    keep(weights, corrections=[])
    assert command(weights, tmp_path / "a", "--corrections", "auto") == 0
    assert ": no correction. " in capsys.readouterr().err
    assert command(weights, tmp_path / "b") == 0
    assert pictures(tmp_path / "a") == pictures(tmp_path / "b")
    assert json.loads((tmp_path / "a" / "sampling.json").read_text())["corrections"][0]["name"] == "auto"


def test_one_that_nobody_asked_for_is_offered(weights, tmp_path, capsys):
    assert command(weights, tmp_path / "a") == 0
    assert "auto" not in capsys.readouterr().err
    file = keep(weights)
    assert command(weights, tmp_path / "b") == 0
    assert f"a calibration for this sampling exists, {file}: --corrections auto" in capsys.readouterr().err
    assert command(weights, tmp_path / "c", "--corrections", "tsr") == 0
    assert command(weights, tmp_path / "d", "--clip", "none") == 0
    assert "a calibration" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        (["--sampler", "ddim", "--steps", "4"], "--sampler ddim --steps 4"),
        (["--sampler", "ddim,eta=0.5", "--steps", "3"], "--sampler ddim,eta=0.5 --steps 3"),
        (["--sampler", "dpm_solver", "--steps", "3"], "--sampler dpm_solver --steps 3"),
        (["--var_type", "fixed_small", "--steps", "3"], "--sampler fixed_small --steps 3"),
        (["--sampler", "ddim", "--steps", "3", "--spacing", "quad"], "--sampler ddim --steps 3 --spacing quad"),
        (["--sampler", "ddim", "--spacing", "[9,5.5,0]"], "--sampler ddim --spacing '[9,5.5,0]'"),
        (["--sampler", "ddim", "--steps", "3", "--clip", "none"], "--sampler ddim --steps 3 --clip none"),
        (["--sampler", "ddim", "--steps", "3", "--afs"], "--sampler ddim --steps 3 --afs"),
        (["--sampler", "ddim", "--steps", "2,1"], "--sampler ddim --steps 2,1"),
    ],
)
def test_another_sampling_has_none_and_is_told_the_command(weights, tmp_path, capsys, more, wanted):
    keep(weights)
    assert command(weights, tmp_path / "a", "--corrections", "auto", steps=more) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"`ddpm-ip calibrate --weights ... {wanted}`" in said
    assert not (tmp_path / "a").exists()


def test_other_weights_have_none(weights, tmp_path, capsys):
    """Nor do they take one that was copied to them, under whatever name."""
    file = keep(weights)
    other = ip.load(weights).train(n_steps=7)
    assert command(weights, tmp_path / "a", "--corrections", "auto") == 2
    assert "there is no" in capsys.readouterr().err
    name = calibrated.name_of(DDIM, other._weights.sha256, other.schedule)
    file.rename(file.with_name(f"{name}.json"))
    assert command(weights, tmp_path / "a", "--corrections", "auto") == 2
    assert "was measured for other weights" in capsys.readouterr().err


def test_a_file_of_weights_has_it_next_to_itself(weights, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(next(weights.glob("ckpt/*/ema.safetensors")), alone / "a.safetensors")
    file = keep(alone / "a.safetensors")
    assert file.parent == alone
    auto = ["-c", str(weights / "config.yaml"), "--corrections", "auto"]
    assert command(alone / "a.safetensors", tmp_path / "a", *auto) == 0
    shutil.copy(file, weights)
    sample_auto(weights, tmp_path / "b")
    assert pictures(tmp_path / "a") == pictures(tmp_path / "b")


def test_optimised_times_and_variances_are_part_of_it(weights, tmp_path):
    """What it was calibrated with is the times that were found, not the word."""
    of = find_weights(weights)
    store = Measured.of(of.sha256, Path(of.origin))
    store.write("times-3", {"times": [900, 400.5, 10]}, {})
    keep(weights, replace(DDIM, steps=None, spacing=(900, 400.5, 10)))
    wanted = replace(DDIM, spacing="optimised", corrections=(ip.Auto(),), block=2)
    sample(tiny(), weights, tmp_path / "a", SampleOptions(4, wanted))
    store.write("times-3", {"times": [900, 400, 10]}, {})
    with pytest.raises(calibrated.NotCalibrated, match="--sampler ddim --steps 3 --spacing optimised"):
        sample(tiny(), weights, tmp_path / "b", SampleOptions(4, wanted))
    with pytest.raises(ConfigError, match="ddpm-ip times"):
        calibrated.name_of(replace(DDIM, spacing="optimised"), of.sha256, tiny().diffusion.schedule)
    for open_ in (ip.Ancestral(), ip.Ancestral("analytic")):
        with pytest.raises(ConfigError, match="left to the weights"):
            calibrated.name_of(replace(DDIM, sampler=open_), of.sha256, tiny().diffusion.schedule)


def test_the_name_says_what_it_is_of():
    schedule = tiny().diffusion.schedule
    name = calibrated.name_of(replace(DDIM, sampler=ip.DPMSolver()), "0" * 64, schedule)
    assert name.startswith("calibration-dpm_solver-3-")
    assert len(name) == len("calibration-dpm_solver-3-1a2b3c4d")
    same = [
        replace(DDIM, sampler=ip.DPMSolver(), seed=3, block=7, precision="bf16"),
        replace(DDIM, sampler=ip.DPMSolver(), corrections=(ip.Auto(),)),
        replace(DDIM, sampler=ip.DPMSolver(), corrections=(ip.Auto(OBJECTS),)),
    ]
    assert {calibrated.name_of(one, "0" * 64, schedule) for one in same} == {name}
    ddim = {calibrated.name_of(replace(DDIM, sampler=ip.DDIM(eta)), "0" * 64, schedule) for eta in (0, 0.0)}
    assert len(ddim) == 1
    others = [replace(DDIM, corrections=(ip.TSR(),)), replace(DDIM, clip="none"), replace(DDIM, spacing="quad"), DDIM]
    assert len({calibrated.name_of(one, "0" * 64, schedule) for one in others}) == 4
    assert calibrated.name_of(DDIM, "1" * 64, schedule) not in ddim


# --- beside other corrections ----------------------------------------------------------------------------------------


def test_auto_comes_after_guidance_and_its_evaluations_are_counted(trained_with_classes, tmp_path):
    weights = shutil.copytree(trained_with_classes, tmp_path / "run")
    of, run = find_weights(weights), ip.load(weights)
    guided = replace(DDIM, corrections=(ip.Guidance(2),))
    found = {**FOUND, "corrections": CHAIN[:1]}
    calibrated.keep(guided, run.config, of.sha256, Path(of.origin), found)
    given = {"sampler": ip.DDIM(), "steps": 3, "block": 2}
    auto = run.sample(2, corrections=[ip.Guidance(2), "auto"], **given)
    typed = run.sample(2, corrections=[ip.Guidance(2), OBJECTS[0]], **given)
    assert (auto.images == typed.images).all()
    assert auto.evaluations == typed.evaluations == 6
    with pytest.raises(calibrated.NotCalibrated, match="--corrections guidance,scale=3`"):
        run.sample(2, corrections=[ip.Guidance(3), ip.Auto()], **given)
    calibrated.keep(DDIM, run.config, of.sha256, Path(of.origin), {**found, "corrections": [{"name": "guidance"}]})
    assert run.sample(2, corrections="auto", **given).evaluations == 6
    late, scaled = {**found, "corrections": [{"name": "guidance"}]}, replace(DDIM, corrections=(ip.EpsilonScaling(),))
    with pytest.raises(ConfigError, match="guidance asks the network more than once"):
        calibrated.keep(scaled, run.config, of.sha256, Path(of.origin), late)


def test_what_cannot_stand_beside_it_is_refused(weights, tmp_path, capsys):
    keep(weights)
    assert command(weights, tmp_path / "a", "--corrections", "auto", "auto") == 2
    assert "the correction auto is given twice" in capsys.readouterr().err
    for text in ("auto,scale=3", "auto,calibration=sha256:0123456789ab", "auto,chain=[]"):
        assert command(weights, tmp_path / "a", "--corrections", text) == 2
        assert "auto" in capsys.readouterr().err
    scaled = replace(DDIM, corrections=(ip.EpsilonScaling(1.01),))
    with pytest.raises(ConfigError, match=r"the correction epsilon_scaling is given, and the calibration .* leave one"):
        keep(weights, scaled)
    file = keep(weights, scaled, corrections=[])
    changed(file, corrections=CHAIN)
    assert command(weights, tmp_path / "a", "--corrections", "epsilon_scaling,scale=1.01", "auto") == 2
    assert "epsilon_scaling is given, and the calibration" in " ".join(capsys.readouterr().err.split())


def test_modes_that_walk_from_noise_take_it_and_others_do_not(weights, tmp_path, capsys):
    keep(weights)
    for mode in ("denoise", "progressive", "interpolate"):
        assert command(weights, tmp_path / mode, "--corrections", "auto", "--mode", mode) == 0
    capsys.readouterr()
    pictured = ["--mode", "reconstruction", "--input_dir", str(tmp_path / "denoise")]
    assert command(weights, tmp_path / "a", "--corrections", "auto", *pictured) == 2
    assert "walks that begin with noise that was drawn" in " ".join(capsys.readouterr().err.split())
    run = ip.load(weights)
    given = {"steps": 3, "block": 2}
    images = run.sample(2, **given).images
    assert (run.invert(images, **given) == run.invert(images, corrections="auto", **given)).all()


def test_a_teacher_of_times_has_none(weights, capsys):
    given = ["--weights", str(weights), "--steps", "3", "--corrections", "auto"]
    assert main(["times", *given]) == 2
    assert "the teacher walks along times of its own" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("often", [{"sample_freq": 2}, {"eval": {"every": 2, "extractor": "pixels"}}], ids=str)
def test_training_refuses_it_before_the_first_step(tmp_path, often):
    run = ip.new(tiny(**often), tmp_path / "run", sampling=ip.Sampling(ip.DDIM(), (ip.Auto(),)))
    with pytest.raises(ConfigError, match=r"during training .*auto stands for .* finished weights.*ddpm-ip calibrate"):
        run.train()
    assert not (tmp_path / "run" / "ckpt").exists()


def test_a_configuration_may_say_it_for_the_finished_network(tmp_path):
    run = ip.new(tiny(n_steps=1), tmp_path / "run", sampling=ip.Sampling(ip.DDIM(), (ip.Auto(),), steps=3)).train()
    assert run.config == from_dict(run.config.to_dict())
    with pytest.raises(calibrated.NotCalibrated, match=r"there is no .*calibration-ddim-3-"):
        run.sample(2)
    keep(tmp_path / "run")
    assert run.sample(2).evaluations == 3


# --- what is read of strangers ---------------------------------------------------------------------------------------

DAMAGES = [
    ("{", "cannot be read"),
    ("[]", "must be an object"),
    ({"schema": 2}, "newer version"),
    ({"corrections": {}}, "a corrections that is an object"),
    ({"corrections": None}, "a corrections that is empty"),
    ({"corrections": [1]}, "corrections.0"),
    ({"corrections": ["auto"]}, "corrections.0"),
    ({"corrections": [[{"name": "tsr"}]]}, "corrections.0"),
    ({"corrections": [{"name": "auto"}]}, "auto cannot stand for itself"),
    ({"corrections": [{"name": "auto", "chain": [{"name": "tsr"}]}]}, "auto has no settings"),
    ({"corrections": [{"name": ["tsr"]}]}, "corrections.0.name"),
    ({"corrections": [{"name": "os.system", "scale": 1}]}, "unknown name 'os.system'"),
    ({"corrections": [{"name": "epsilon_scaling", "scale": 0}]}, "scale must be a positive number"),
    ({"corrections": [{"name": "epsilon_scaling", "scale": math.nan}]}, "no finite number"),
    ({"corrections": [{"name": "epsilon_scaling", "scale": math.inf}]}, "corrections.0.scale is no finite number"),
    ({"corrections": [{"name": "epsilon_scaling", "scale": True}]}, "not true/false"),
    ({"corrections": [{"name": "epsilon_scaling", "times": [5, 0], "scales": [1, 1]}]}, "two rising times"),
    ({"corrections": [{"name": "band_gains", "x0": [1e999]}]}, "no finite number"),
    ({"corrections": [{"name": "tsr", "k": 0.9, "evil": 1}]}, "corrections.0.evil: unknown key"),
    ({"corrections": [{"name": "tsr"}, {"name": "tsr"}]}, "given twice"),
    ({"corrections": [{"name": "guidance"}]}, "guidance"),  # the model is unconditional
    ({"corrections": [{"name": "time_shift", "variant": "released"}, {"name": "tsr", "k": 0}]}, "k "),
    ({"chosen": 3}, "a chosen that is a number"),
    ({"why": None}, "a why that is empty"),
    ({"weights": "0" * 64}, "for other weights"),
    ({"settings": {}}, "calibrated for another sampling"),
    ({"settings": {"sampling": [1]}}, "calibrated for another sampling"),
    ({"candidates": [{}]}, "candidates must be objects that have a name"),
    ({"curves": {"delta": {"t": [1, 2], "value": [1]}}}, "curves must have a list t"),
    ({"expects": [1]}, "must be sentences"),
    ({"suggestions": []}, "suggestions is a list"),
    ({"candidates": [{"name": "a", "mismatch": math.nan}]}, "candidates.0.mismatch is no finite number"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES, ids=[str(damage)[:60] for damage, _ in DAMAGES])
def test_a_file_that_is_of_no_use_is_refused_in_words(weights, capsys, damage, words):
    file = keep(weights)
    if isinstance(damage, str):
        file.write_text(damage)
    else:
        changed(file, **damage)
    home, config = Measured.beside(find_weights(weights).sha256, weights), tiny()
    with pytest.raises(ip.UserError) as refused:
        calibrated.read(home, replace(DDIM, corrections=(ip.Auto(),)), config)
    said = str(refused.value)
    assert words in said
    assert file.name in said
    assert "schema" in str(damage) or "calibrate again: `ddpm-ip calibrate" in said
    assert "Traceback" not in said


def test_a_renamed_file_is_of_another_sampling(weights):
    file, four = keep(weights), replace(DDIM, steps=4, corrections=(ip.Auto(),))
    home = Measured.beside(find_weights(weights).sha256, weights)
    file.rename(home.file(calibrated.name_of(four, home.weights, tiny().diffusion.schedule)))
    with pytest.raises(ConfigError, match=r"calibrated for another sampling .*Remove it, and calibrate again"):
        calibrated.read(home, four, tiny())


def test_control_characters_of_a_stranger_reach_nobody(weights, tmp_path, capsys):
    keep(weights, why="\x1b[31mred\x1b[0m", chosen="a\nb")
    assert command(weights, tmp_path / "a", "--corrections", "auto") == 0
    assert "\x1b[31m" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"why": 3}, "its why is a number"),
        ({"corrections": [{"name": "tsr", "k": math.inf}]}, "corrections.0.k is no finite number"),
        ({"corrections": [{"name": "tsr", "j": 1}]}, "unknown key"),
        ({"curves": {"nu": {"t": [1]}}}, "curves must have"),
    ],
    ids=str,
)
def test_nothing_wrong_is_kept(weights, found, words):
    with pytest.raises(ConfigError, match=words):
        keep(weights, **found)
    assert not list(weights.glob("calibration*"))


def test_all_that_a_person_is_told_is_kept(weights):
    told = {
        "candidates": [{"name": "a", "corrections": CHAIN, "mismatch": 0.1, "distance": None}],
        "expects": ["Less."],
        "cannot_know": ["All."],
        "suggestions": {"perturbation.gamma": "0.15"},
        "curves": {"eps_norm.ratio": {"t": [0, 1], "value": [1.0, 1.1]}},
        "settings": {"n": 100},
    }
    there = json.loads(keep(weights, **told).read_text())
    assert there == {**there, **FOUND, **told, "settings": there["settings"]}
    assert there["settings"]["n"] == 100
    assert there["settings"]["sampling"] == {
        "sampler": {"name": "ddim", "eta": 0.0}, "corrections": [], "clip": "rederive", "steps": 3,
        "spacing": "uniform-linspace",
    }  # fmt: skip
