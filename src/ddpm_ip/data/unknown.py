"""Images that nobody has named: what a network from elsewhere was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ddpm_ip.data.decode import ImageSize
from ddpm_ip.data.imageset import ImageSet
from ddpm_ip.data.labels import Labels
from ddpm_ip.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """Images of which only the size is known, as an imported network makes them; they cannot be opened.

    Attributes:
        image_size: height and width, or one number for both.
    """

    name: Literal["unknown"] = "unknown"
    image_size: ImageSize = 32

    def open(self, progress: bool = True) -> ImageSet:
        """There is nothing to open.

        Raises:
            DataError: always; says how to name images.
        """
        raise DataError(
            "data.name is unknown: nothing says on which images this network was trained. Name some: --data.name "
            "cifar10 --data.root ROOT, with --change data to continue training; a table compares with those of "
            "--reference DATA"
        )

    def some_labels(self) -> Labels | None:
        """None: nothing is known about them."""
        return None
