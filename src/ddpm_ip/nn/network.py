"""What a network is to everything else, and what its configuration must be able to say.

A new network is one file, with a frozen dataclass that satisfies :class:`NetworkConfig` and the module that it builds,
and one line in ``ModelConfig`` (``ddpm_ip/nn/__init__.py``). It runs on the plain path; to run on the fast one, too, it
is a :class:`ddpm_ip.nn.unet.Block` made of the operations in :mod:`ddpm_ip.nn.ops`, between convolutions ``conv_in``
and ``conv_out``.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor, nn


class Cond(NamedTuple):
    """What a prediction is conditioned on, besides the noisy image and its time.

    Attributes:
        labels: int64 (B,), values in [-1, classes), where -1 says nothing about the class; None if there are none.
    """

    labels: Tensor | None = None


class Network(Protocol):
    """``(x (B, C, H, W), t (B,), cond) -> (B, out_channels, H, W)``.

    An unconditional network is asked without ``cond``, so a function of ``(x, t)`` is one, too.
    """

    def __call__(self, x: Tensor, t: Tensor, cond: Cond | None = None, /) -> Tensor: ...


class NetworkConfig(Protocol):
    """A frozen dataclass with the sizes of a network: the section ``model`` of a configuration.

    The sizes are checked by ``annotated_types`` markers on its fields and by the module that is built. A network that
    knows only whole times says so: ``whole_times: ClassVar[bool] = True``. It is then given the nearest whole time
    where a sampler asks between two.
    """

    @property
    def name(self) -> str:
        """What ``model.name`` says."""
        ...

    @property
    def in_channels(self) -> int:
        """Channels of the images."""
        ...

    def build(self, channels: int, out_channels: int, classes: int | None) -> nn.Module:
        """A fresh network (see :class:`Network`), initialised from torch's global generator.

        Args:
            channels: of the input.
            out_channels: of the prediction.
            classes: number of classes of a conditional network; None for an unconditional one.

        Raises:
            ConfigError: sizes that do not fit together.
        """
        ...

    def check(self, height: int, width: int) -> None:
        """Refuses images (in pixels) that the network cannot process.

        Raises:
            ConfigError: says which size would do.
        """
        ...

    def activation_bytes(self, height: int, width: int, element_size: int) -> int:
        """Memory of the activations that are alive at one time while the network is evaluated, for one image.

        Args:
            height, width: in pixels.
            element_size: bytes of a number: 4 in float32, 2 in half precision.
        """
        ...
