"""Their keys, read one by one: what each means, and what holds where a whole configuration says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddpm_ip.translation import words
from ddpm_ip.translation.notes import Notes


class Reader:
    """Reads their keys, by dotted path without ``params``.

    Args:
        given: the keys.
        over: others that win over them.
        beside: what else is said, in our words.
        whole: whether the keys are all that a configuration of theirs says.
    """

    def __init__(
        self, given: Mapping[str, Any], over: Mapping[str, Any], beside: Mapping[str, Any], whole: bool
    ) -> None:
        self.given: dict[str, Any] = {}
        self.beside, self.whole, self.notes = beside, whole, Notes()
        self.source: dict[str, str] = {}  # for a path of ours the one of theirs that it comes from, as last named
        for path, value in given.items():
            name = "data.target" if path == "data.name" else words.EARLIER.get(path, path)
            if name in self.given and self.given[name] != value:
                self._refuse(path, value, f"{name} is {word(self.given[name])}")
            self.given[name] = value
        self.given |= {words.EARLIER.get(path, path): value for path, value in over.items()}

    def read(self) -> dict[str, Any]:
        """Everything that is given, in our words by dotted path."""
        ours: dict[str, Any] = {}
        for path, value in self.given.items():
            if path in words.SAME:
                ours[path] = value
                if self.whole:
                    self.notes.same.append(path)
                continue
            found = self._one(path, value)
            if found:
                read = ", ".join(f"{name} {word(one)}" for name, one in found.items())
                self.notes.read.append(f"{path} {word(value)} -> {read}")
            self.source |= dict.fromkeys(found, path)
            ours |= found
        if self.whole:
            self._complete(ours)
        return ours

    def _one(self, path: str, value: Any) -> dict[str, Any]:
        """What one key means: values of ours by dotted path; none if it is left out, or was refused."""
        if words.NAMES.get(path) in self.beside:
            return self._leave(path, f"{words.NAMES[path]} says it")
        if path in words.RENAMED:
            return {words.RENAMED[path]: value}
        if path in words.SPECIAL:
            found: dict[str, Any] | None = getattr(self, "_" + path.replace(".", "_"))(value)
            return found if found is not None else self._leave(path, "as it is here")
        if path in words.OFF and value is False:
            return self._leave(path, "as it is here")
        if path == "train.epochs" and "train.n_steps" in {**self.given, **self.beside}:
            return self._leave(path, "train.n_steps says it")
        if (why := why_left_out(path)) is None:
            return self._refuse(path, value, words.IMPOSSIBLE.get(path, "there is nothing like it"))
        if path in ("train.resume", "train.pretrained") and value is not None:
            return self._refuse(path, value, why)
        return self._leave(path, why)

    def _complete(self, ours: dict[str, Any]) -> None:
        """Adds what holds there without being said, and looks at what no single key can see."""
        ours.setdefault("model.name", "unet")
        defaults = {**words.DEFAULTS, **self._of_data(ours), **self._of_network(ours), **self._of_previews(ours)}
        for path, value in defaults.items():
            if path not in ours:
                ours[path] = value
                self.notes.applied.append(f"{path} {word(value)}")
        ours.setdefault("perturbation.name", "none")
        inner, learned = ours.get("model.in_channels", 3), ours["diffusion.var_type"] == "learned_range"
        out, seen = self.given.get("model.out_channels"), self.given.get("data.img_channels", inner)
        if isinstance(inner, int) and out is not None and out != inner * (2 if learned else 1):
            self._refuse("model.out_channels", out, "as model.in_channels, or twice as many with a learned variance")
        if seen != inner:
            self._refuse("data.img_channels", seen, f"model.in_channels is {word(inner)}")
        self.notes.different.append(words.PRECISION)

    def _of_network(self, ours: dict[str, Any]) -> dict[str, Any]:
        """What holds for the network without being said, and what is different of it."""
        name = self.beside.get("model.name", ours["model.name"])
        if name == "adm" and self._has_class_unet:
            self.notes.different.append(words.CLASS_NETWORK)
            return words.ADAGN
        for path in words.OF_CLASS_UNET:
            if path in self.given and "model.name" not in self.beside:
                self._refuse(path, self.given[path], f"of the network {words.CLASS_UNET} alone")
        if name != "unet":
            return {}
        self.notes.different.append(words.WEIGHTS)
        if ours.get("model.n_heads", 1) != 1:
            self.notes.different.append("the middle of the network has model.n_heads attention heads, too, there one")
        return words.UNET

    def _of_previews(self, ours: dict[str, Any]) -> dict[str, Any]:
        """The steps of a preview: of classes a twentieth of all, of others all."""
        if "train.p_uncond" not in self.given:
            self.notes.different.append(words.PREVIEWS)
            return {}
        self.notes.different.append(words.HIDDEN)
        total = ours.get("diffusion.total_steps", 1000)
        return {"train.sample_steps": max(1, total // 20)} if isinstance(total, int) else {}

    @property
    def _has_class_unet(self) -> bool:
        return words.NETWORKS.get(str(self.given.get("model.target"))) == "adm"

    @property
    def _classes(self) -> Any:
        """The number of classes of a class-conditional network; None if it is unconditional."""
        return self.given.get("model.num_classes") if self._has_class_unet else None

    def _of_data(self, ours: dict[str, Any]) -> dict[str, Any]:
        """What holds for the data without being said."""
        if "data.name" in self.beside:
            if self.beside["data.name"] != words.DATA.get(_plainest(str(self.given.get("data.target")))):  # other data
                for path in [path for path in ours if path.startswith("data.")]:
                    del ours[path]
                    self._leave(path, "data.name says that the data are others")
                self.notes.same = [path for path in self.notes.same if path in ours]
            return {}
        if "data.target" not in self.given:
            self._refuse("data.target", None, "not given, but needed")
        if self.given.get("data.transform_type") == "none":
            self._refuse("data.transform_type", "none", "images are always resized to data.image_size")
        kind, split = _plainest(str(self.given.get("data.target"))), ours.get("data.split", "train")
        if ours.get("data.image_size") != {"cifar10": 32, "mnist": 28}.get(kind):
            self.notes.different.append("images of another size are resized bicubically, there bilinearly")
        if kind == "celebahq":
            ours.pop("data.split", None)
            if split in ("valid", "test"):
                self._refuse("data.split", split, "the splits of CelebA-HQ are not told apart: use data.name folder")
            elif split != "all":
                self.notes.different.append(words.CELEBA)
            if isinstance(root := ours.get("data.root"), str):
                ours["data.root"] = f"{root.rstrip('/')}/CelebA-HQ-img"
                self.notes.read.append(f"data.root {word(root)} -> data.root {word(ours['data.root'])}")
                self.notes.same.remove("data.root")
        found: dict[str, Any] = {"train.flip": kind in ("cifar10", "celebahq") and split in ("train", "all")}
        if words.DATA.get(kind) == "folder":
            found["data.mode"] = "gray" if self.given.get("data.img_channels") == 1 else "rgb"
        return {**found, "data.download": False} if kind == "cifar10" else found

    # What each key of words.SPECIAL means: values of ours by dotted path; {} if it was refused, None if it is left out.

    def _data_target(self, value: Any) -> dict[str, Any]:
        if found := words.DATA.get(_plainest(str(value))):
            return {"data.name": found}
        why = "training images are cropped at random there" if _plainest(str(value)) == "imagenet" else "no such data"
        return self._refuse("data.target", value, f"{why}: use data.name folder")

    def _data_num_classes(self, value: Any) -> dict[str, Any]:
        conditional = not self.whole or self._classes is not None
        return self._leave(
            "data.num_classes", "classes.count says it" if conditional else "the network is unconditional"
        )

    def _model_target(self, value: Any) -> dict[str, Any]:
        name = words.NETWORKS.get(str(value))
        return {"model.name": name} if name else self._refuse("model.target", value, f"not {words.NETWORK_NAMES}")

    def _model_num_classes(self, value: Any) -> dict[str, Any] | None:
        return None if value is None else {"classes.count": value}

    def _train_p_uncond(self, value: Any) -> dict[str, Any]:
        if self.whole and self._classes is None:
            return self._refuse("train.p_uncond", value, words.NO_CLASSES)
        return {"classes.dropout": value}

    def _train_n_samples_each_class(self, value: Any) -> dict[str, Any]:
        if self._classes is None:
            why = words.NO_CLASSES if self.whole else "give train.n_samples, the images of all classes together"
            return self._refuse("train.n_samples_each_class", value, why)
        shown = min(words.SHOWN_CLASSES, self._classes) if isinstance(self._classes, int) else 1
        return {"train.n_samples": value * shown if isinstance(value, int) else value}

    def _diffusion_target(self, value: Any) -> dict[str, Any] | None:
        name = str(value).rpartition(".")[2]
        if name in words.GUIDED and self.whole and self._classes is None:
            return self._refuse("diffusion.target", value, words.NO_CLASSES)
        if found := "none" if name in words.GUIDED else words.METHODS.get(name):
            # train_ddpm_ip.py has DDPM and train.ip_gamma
            return {"perturbation.name": found} if "train.ip_gamma" not in self.given else None
        return self._refuse("diffusion.target", value, "not diffusions.ddpm.DDPM or diffusions.ddpm_ip.DDPM_IP")

    def _diffusion_guidance_scale(self, value: Any) -> dict[str, Any] | None:
        why = f"guidance is a matter of sampling: sampling.corrections [{{name: guidance, scale: {word(value)}}}]"
        return None if value == 1 else self._refuse("diffusion.guidance_scale", value, why)

    def _diffusion_gamma(self, value: Any) -> dict[str, Any]:
        target = self.given.get("diffusion.target", "" if self.whole else "DDPM_IP")
        if words.METHODS.get(str(target).rpartition(".")[2]) != "input":
            return self._refuse("diffusion.gamma", value, "of diffusion.target diffusions.ddpm_ip.DDPM_IP alone")
        return {"perturbation.gamma": value}

    def _train_ip_gamma(self, value: Any) -> dict[str, Any]:
        if self.given.get("diffusion.gamma", value) != value:
            return self._refuse("train.ip_gamma", value, f"diffusion.gamma is {word(self.given['diffusion.gamma'])}")
        return {"perturbation.name": "input", "perturbation.gamma": value}

    def _diffusion_clip_denoised(self, value: Any) -> dict[str, Any]:
        return {"sampling.clip": "rederive" if value else "none"}

    def _diffusion_respace_type(self, value: Any) -> dict[str, Any] | None:
        return None if value in (None, "none") else {"sampling.spacing": value}

    def _diffusion_respace_steps(self, value: Any) -> dict[str, Any] | None:
        return None if self.given.get("diffusion.respace_type") in (None, "none") else {"sampling.steps": value}

    def _train_optim_target(self, value: Any) -> dict[str, Any]:
        name, decay = str(value).rpartition(".")[2].lower(), "train.optim.weight_decay"
        if name not in ("adam", "adamw"):
            return self._refuse("train.optim.target", value, "not torch.optim.Adam or torch.optim.AdamW")
        is_default = name == "adamw" and decay not in {**self.given, **self.beside}
        return {"train.optim.name": name, **({decay: 0.01} if is_default else {})}  # PyTorch's default

    def _refuse(self, path: str, value: Any, why: str) -> dict[str, Any]:
        self.notes.impossible.append(f"{path} {word(value)}: {why}")
        return {}

    def _leave(self, path: str, why: str) -> dict[str, Any]:
        self.notes.left_out.setdefault(why, []).append(path)
        return {}


def why_left_out(path: str) -> str | None:
    parts = path.split(".")
    return next((why for n in range(len(parts), 0, -1) if (why := words.LEFT_OUT.get(".".join(parts[:n])))), None)


def _plainest(name: str) -> str:
    """``datasets.celebahq.CelebAHQ``, ``CelebA-HQ`` and ``celeba_hq`` as ``celebahq``."""
    return name.rpartition(".")[2].lower().replace("-", "").replace("_", "")


def word(value: Any) -> str:
    """A value as it is written in YAML, short."""
    text = {True: "true", False: "false", None: "null"}.get(value) if isinstance(value, (bool, type(None))) else None
    return text or (value if isinstance(value, str) else repr(value))[:80]
