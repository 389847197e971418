"""The package from Python: a run is begun or loaded, trained, sampled and judged, by the same code as the commands."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ddpm_ip.about import described, html, logged
from ddpm_ip.config import Config, from_dict
from ddpm_ip.data import ImageSet
from ddpm_ip.denoiser import Denoiser
from ddpm_ip.errors import ConfigError
from ddpm_ip.evaluate.features import Extractor
from ddpm_ip.exposure.calibrate import CalibrateOptions, Calibration, calibrate
from ddpm_ip.exposure.curves import Exposure
from ddpm_ip.exposure.program import ExposureOptions, Subject, exposure_of, real_images, with_usual_steps
from ddpm_ip.images import UInt8, to_unit
from ddpm_ip.interop.export import ExportOptions, export
from ddpm_ip.interop.find import find_weights as any_weights
from ddpm_ip.interop.find import foreign_weights
from ddpm_ip.interop.find import source as foreign
from ddpm_ip.judging import compared, streamed
from ddpm_ip.places import expanded
from ddpm_ip.run import builtin
from ddpm_ip.run.folder import RunFolder, config_near
from ddpm_ip.run.log import as_before
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.record import Evaluation
from ddpm_ip.run.weights import Weights, find_weights
from ddpm_ip.sample.calibrated import base
from ddpm_ip.sample.filled import filled
from ddpm_ip.sample.generator import Model
from ddpm_ip.sample.modes import images_from, inverse, noise_behind, of_given, refuse_unfit
from ddpm_ip.sample.program import default_block, load_model, sampling_engine
from ddpm_ip.sample.samples import Samples
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.schedule import Schedule
from ddpm_ip.settings import Wanted
from ddpm_ip.told import AnyConfig, Where, configured, said_of_foreign, sampling_of, section
from ddpm_ip.train import loop
from ddpm_ip.train.callback import Callback, calling
from ddpm_ip.train.start import backends_as_before


def load(path: Path | str, config: AnyConfig | None = None, *, ema: str | float | None = None, **overrides: Any) -> Run:
    """A run that was trained.

    Args:
        path: the folder of a run (its newest whole checkpoint), a checkpoint, or a ``.safetensors`` file of weights;
            "digits", the weights that come with the package (:mod:`ddpm_ip.run.builtin`); or a network from elsewhere,
            as ``ddpm-ip import`` takes it, whose source decides what it says itself.
        config: of the model; by default the settings that the weights were trained with.
        ema: which average of the run, as ``--ema`` of ``ddpm-ip sample``; by default the first of ``train.ema_decay``.
        overrides: items of the configuration, see :func:`new`.

    Raises:
        CheckpointError: there are no weights, or they are damaged.
        ConfigError: there is no configuration, or it cannot be used.
    """
    path = builtin.found(expanded(path))
    wanted = None if ema is None else str(ema)
    if (place := foreign(path)) is not None:
        weights = foreign_weights(place, said_of_foreign(config, overrides), wanted)
        return Run(from_dict(_own(place, weights)), None, weights)
    weights = find_weights(path, wanted)
    found = None if builtin.is_one(path) else config_near(path)
    source = _own(path, weights) if config is None else config
    run = Run(configured(source, overrides), None if found is None else found.parent, weights)
    if builtin.is_one(path):
        run._resume = None
    elif found is not None and path.resolve() == found.parent.resolve():
        run._resume = "latest"
    return run


def new(
    config: AnyConfig | None = None, exp_dir: Where | None = None, *, init_from: Where | None = None, **overrides: Any
) -> Run:
    """A run that is to be trained. Nothing is written before :meth:`Run.train`.

    Args:
        config: a YAML file, plain values as in one, or a :class:`ddpm_ip.config.Config`; by default ``init_from``'s.
        exp_dir: where results go; ``runs/exp-{current time}`` by default.
        init_from: weights that it begins with, as ``--init-from`` of ``ddpm-ip train``.
        overrides: items of the configuration, a section at a time as a mapping or an object:
            ``train={"n_steps": 200, "optim": {"lr": 1e-3}}``, ``perturbation=ip.InputPerturbation(0.15)``, ``seed=1``.
            What a mapping does not name stays. Dotted paths will do, too: ``**{"train.n_steps": 200}``.

    Raises:
        ConfigError: the configuration cannot be used, or the folder holds a run already.
    """
    folder = None if exp_dir is None else expanded(exp_dir)
    _refuse_used(folder)
    source = None if init_from is None else expanded(init_from)
    if config is None:
        if source is None:
            raise ConfigError("new() needs a configuration, or init_from=... to take that of a run")
        config = _own(source, any_weights(source))
    return Run(configured(config, overrides), folder, None, source)


def _own(path: Path, weights: Weights) -> Mapping[str, Any]:
    """The settings that weights were trained with."""
    try:
        return weights.trained(path).config
    except ConfigError as error:
        raise ConfigError(f'{error}; or give the configuration, as in config="my.yaml"') from None


class Run:
    """A run as it stands at a step: configuration, folder, averaged network; made by :func:`load` and :func:`new`.

    Attributes:
        config: everything that it is made of.
        folder: where its results are; None before it was trained for the first time, and for a file of weights alone.
    """

    def __init__(self, config: Config, folder: Path | None, weights: Weights | None, init_from: Path | None = None):
        self.config, self.folder, self._weights, self._init_from = config, folder, weights, init_from
        self._resume = str(weights.checkpoint.path) if weights is not None and weights.checkpoint is not None else None
        self._model: Model | None = None
        self._block = 0  # of the samples of this model, where nobody says

    def __repr__(self) -> str:
        where = "" if self.folder is None else f" {self.folder}"
        return f"<run{where}, step {'unknown' if self.step is None else self.step}>"

    def __str__(self) -> str:
        return described(self.config, self.folder, self._weights)

    _repr_html_ = html

    @property
    def step(self) -> int | None:
        """Training steps behind the weights; 0 before training, None if a file of weights does not say."""
        return 0 if self._weights is None else self._weights.step

    @property
    def schedule(self) -> Schedule:
        """The noise levels that it is trained with."""
        return self.config.diffusion.schedule

    @property
    def denoiser(self) -> Denoiser:
        """The averaged network as it is sampled, in evaluation mode, on the device: ``(x_t, t) -> Prediction``.

        Raises:
            UserError: it was not trained yet, or the weights do not fit the configuration.
        """
        return self._sampled(self.config.sampling).denoiser

    @property
    def logged(self) -> dict[str, npt.NDArray[np.float64]]:
        """What training logged, float64 (lines,) each: ``step``, ``loss``, ``grad_norm``, ...; empty if nothing was."""
        return logged(self.folder)

    def train(
        self,
        n_steps: int | None = None,
        resume: Path | str | None = None,
        change: Sequence[str] = (),
        *,
        callback: Callback | None = None,
    ) -> Run:
        """Trains, or continues, as ``ddpm-ip train`` does: what is there is never destroyed.

        A new run begins at step 0; one that was loaded or trained continues from where it stands (loaded from a folder,
        its newest checkpoint; later checkpoints than the one that was loaded are set aside).

        Args:
            n_steps: the last step; by default ``train.n_steps``. A run that is there already has nothing to do.
            resume: another place to start from: "latest", a checkpoint, or the folder of a run.
            change: keys of the method that may differ from those of the run that is continued, such as
                ``["perturbation.gamma"]``; see :mod:`ddpm_ip.settings`.
            callback: called with a :class:`ddpm_ip.Progress` after each log line (every ``train.print_freq`` steps, and
                the last), on the main process. Its ``stop()`` ends training after that step, once the state is saved.

        Returns:
            The run itself, with the weights of its last step. An interruption (Ctrl-C, the notebook's stop button) is
            raised as KeyboardInterrupt once the state is saved; the run then has the weights of that step. So is an
            error of the callback.

        Raises:
            UserError: as :func:`ddpm_ip.train.loop.train`.
            Exception: what the callback raised.
        """
        config, hooks = self.config, calling(callback)
        if n_steps is not None:
            checked = section("train", {"n_steps": n_steps})
            config = dataclasses.replace(config, train=dataclasses.replace(config.train, n_steps=checked.n_steps))
        start = self._resume if resume is None else str(resume)
        if start is None:
            self._refuse_to_begin()
        with as_before(), backends_as_before():
            wanted = Wanted(config=config, change=tuple(change), init_from=self._init_from if start is None else None)
            outcome = loop.train(wanted, self.folder, start, hooks)
        self.config, self.folder = config, outcome.folder
        self._weights, self._model, self._resume = find_weights(outcome.folder), None, "latest"
        if outcome.error is not None:
            raise outcome.error
        if outcome.signal is not None:
            signal.raise_signal(outcome.signal)  # for whoever it was meant for
            raise KeyboardInterrupt  # who ignored it (a program in the background ignores Ctrl-C): this is not the end
        return self

    def sample(self, n: int, **settings: Any) -> Samples:
        """Images of the averaged network, made when they are looked at: the same bytes as ``ddpm-ip sample`` writes.

        Args:
            n: how many; the images 0 .. n - 1 of the seed.
            settings: the fields of :class:`ddpm_ip.sampler.sampling.Sampling`: ``sampler``, ``corrections``, ``clip``,
                ``steps``, ``spacing``, ``seed``, ``block``, ``precision``, ``afs``, ``denoise_to_zero``, ``classes``
                (3, [0, 5], "none"; by default a class-conditional model makes all of its classes in turn). What is not
                given is taken from the section ``sampling`` of the configuration. ``sampler`` and ``corrections`` are
                objects, as in ``ip.DDIM(eta=1)``; your own will do (:class:`ddpm_ip.sampler.base.Sampler`, as a
                dataclass). ``corrections="auto"`` is what `ddpm-ip calibrate` found.

        Raises:
            UserError: it was not trained yet, a setting is unknown or impossible, or the model cannot be sampled so.
        """
        model, sampling = self._wanted(settings)
        assert self._weights is not None
        return Samples(model, n, sampling, self._weights.facts())

    def evaluate(
        self,
        n: int = 10_000,
        features: Extractor | str = "inception",
        metrics: Sequence[str] | None = None,
        reference: ImageSet | Path | str | None = None,
        **settings: Any,
    ) -> Evaluation:
        """Samples, and compares them with real images as ``ddpm-ip evaluate`` does; no image is kept::

            run.evaluate(2000, "pixels", sampler=ip.DDIM(), steps=20).values["FD-pixels"]

        Args:
            n: images.
            features, metrics: as of :func:`ddpm_ip.measure`.
            reference: the real images, likewise; None for those that the run was trained on.
            settings: as of :meth:`sample`.

        Raises:
            UserError: as :meth:`sample` and :func:`ddpm_ip.measure`.
        """
        source = streamed(self.sample(n, **settings))
        return compared(source, self if reference is None else reference, features, metrics)

    def exposure(self, *measures: str, n: int = 10_000, again: bool = False, **settings: Any) -> Exposure:
        """Exposure bias of one way to sample, as ``ddpm-ip exposure`` measures it and keeps it next to the weights.

        Args:
            measures: of ``eps_norm``, ``delta``, ``errors``, ``energy``; all if none is named.
            n: images, at most as many as there are real ones: those of the section ``data`` of the configuration.
            again: also measures what is kept already.
            settings: as of :meth:`sample`; ``steps`` is 50 where neither they nor the configuration say it.

        Raises:
            UserError: as :meth:`sample`; there are no real images, or a measure is unknown.
        """
        sampling = with_usual_steps(sampling_of(self.config.sampling, settings), self.config)
        model = self._sampled(sampling)
        assert self._weights is not None
        sampling = dataclasses.replace(sampling, block=sampling.block or self._block)
        subject = Subject(self.config, self._weights, model, real_images(self.config, model.engine))
        return exposure_of(subject, sampling, ExposureOptions(n, measures, again)).exposure

    def calibrate(self, n: int = 2000, *, extractor: str | None = None, seed: int = 1, **settings: Any) -> Calibration:
        """Finds the corrections of one way to sample, as ``ddpm-ip calibrate`` does, for ``corrections="auto"``.

        Args:
            n: walks behind each fit.
            extractor: the name of features that decide, see :func:`ddpm_ip.measure`; by default a distance that needs
                no network.
            seed: of the walks; another than images are made with.
            settings: as of :meth:`sample`, but for ``seed``.

        Returns:
            What was found, which is kept next to the weights; an earlier calibration of the same sampling is replaced.

        Raises:
            UserError: as :meth:`sample`; there are no real images, or the folder cannot be written.
        """
        if self._weights is None:
            raise _untrained()
        sampling = sampling_of(self.config.sampling, settings)
        with as_before():
            return calibrate(self.config, self._weights, sampling, CalibrateOptions(n, seed, extractor))

    def invert(self, images: UInt8 | torch.Tensor, **settings: Any) -> torch.Tensor:
        """The noise ``x_T`` of which DDIM makes images (DDIM inversion, :mod:`ddpm_ip.sampler.inversion`).

        Args:
            images: ``uint8`` (N, C, H, W), of the size that the network makes.
            settings: as of :meth:`sample`. Only ``steps``, ``spacing``, ``block``, ``precision`` and ``classes``
                matter: the network is asked as it is, without corrections or clipping, and without a class unless
                ``classes`` says one.

        Returns:
            float32 (N, C, H, W), on the model's device; for :meth:`generate`, with the same times.

        Raises:
            UserError: as :meth:`sample`, or the images are of another shape.
        """
        model, sampling = self._wanted(settings, given=True, corrected=False)
        generator = model.generator(inverse(sampling))
        given = images if isinstance(images, torch.Tensor) else torch.from_numpy(np.array(images))
        refuse_unfit(given, given.dtype == torch.uint8, generator, "images to invert are uint8")
        return noise_behind(generator, to_unit(given), torch.arange(len(given), device=generator.model.device))

    def generate(self, noise: torch.Tensor, **settings: Any) -> UInt8:
        """The images that given noise leads to, ``uint8`` (N, C, H, W).

        Args:
            noise: ``x_T``, float32 (N, C, H, W): of :meth:`invert`, or between two of these (:func:`ddpm_ip.slerp`).
            settings: as of :meth:`sample`; without ``classes`` the network is asked without a class, as by
                :meth:`invert`. What noise a sampler adds on the way is that of image i of the seed.

        Raises:
            UserError: as :meth:`sample`, or the noise is of another shape.
        """
        model, sampling = self._wanted(settings, given=True)
        generator = model.generator(sampling)
        refuse_unfit(noise, noise.is_floating_point(), generator, "noise to start with is float32")
        return images_from(generator, noise.float(), torch.arange(len(noise), device=generator.model.device))

    def export(self, path: Path | str, format: str = "diffusers", licence: str | None = None) -> Path:
        """Writes the averaged network for other programs, as ``ddpm-ip export`` does.

        Args:
            path: a folder; new, or empty.
            format: ``diffusers``, a DDPMPipeline; or ``safetensors``, one file that :func:`load` takes alone.
            licence: of the weights, for the card.

        Raises:
            UserError: it was not trained yet, the folder is used or cannot be written, or diffusers has no such
                network.
        """
        if self._weights is None:
            raise _untrained()
        options = ExportOptions(format, licence)  # type: ignore[arg-type]  # which it checks
        return export(self.config, self._weights, Path(self._weights.origin), expanded(path), options)

    def _wanted(
        self, settings: Mapping[str, Any], given: bool = False, corrected: bool = True
    ) -> tuple[Model, Sampling]:
        """The model and how it is sampled, with nothing left open; of images or noise that are given, if they are."""
        sampling = sampling_of(self.config.sampling, settings)
        sampling = sampling if corrected else base(sampling)
        model = self._sampled(sampling)
        assert self._weights is not None
        store = Measured.of(self._weights.sha256, Path(self._weights.origin))
        sampling = dataclasses.replace(sampling, block=sampling.block or self._block)
        sampling = of_given(sampling, self.config.classes) if given else sampling
        return model, filled(sampling, self.config, store, model)

    def _sampled(self, sampling: Sampling) -> Model:
        """The model, made once for all samples of these weights, so that a GPU captures its graphs once."""
        if self._weights is None:
            raise _untrained()
        engine = sampling_engine(self.config, sampling)
        if self._model is None:
            found = self._weights.checkpoint
            origin = "the file" if found is None else str(found.path)
            self._model = load_model(self.config, self._weights.tensors, engine, origin)
            self._block = default_block(self.config, engine)
        return self._model

    def _refuse_to_begin(self) -> None:
        """A run begins at step 0 where there are no weights yet, and no other run."""
        if self._weights is not None:
            raise ConfigError(
                "weights alone are no state that training can continue from: load the folder of their run, or a "
                "checkpoint; or begin a run with them, new(init_from=...)"
            )
        _refuse_used(self.folder)


def _untrained() -> ConfigError:
    return ConfigError("this run has no weights yet: train it first, run.train()")


def _refuse_used(folder: Path | None) -> None:
    if folder is not None and RunFolder(folder).is_used:
        raise ConfigError(
            f"{folder} holds a run already, and nothing of it was touched. Continue it with "
            f"load({str(folder)!r}).train(), or choose another folder"
        )
