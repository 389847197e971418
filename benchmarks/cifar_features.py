"""Fréchet distance and class-score of CIFAR-10 samples in the features of a fixed CIFAR-10 classifier.

The classifier is the published ResNet-56 (`resnet56-4bfd9763.th` of akamaster/pytorch_resnet_cifar10, 6.6 % test
error; BSD licence; not in this repository).
The numbers are NOT comparable with published FID/IS: they serve where the Inception weights cannot be had, to compare
two sets of samples under one protocol. Report them as `FD-C56` and `CS-C56`, never as FID or IS.

    python cifar_features.py --real data/cifar10 --fake samples.npz          # uint8, (N,32,32,3) or (N,3,32,32)
    python cifar_features.py --real data/cifar10 --fake folder_of_png/ --device cuda

FD-C56: Fréchet distance between Gaussians fitted to 160 features an image: the spatial mean of the last stage (64) and
the spatial mean and standard deviation of the second (64) and the first stage (32), each feature divided by its
standard deviation over the real training set. The train/test distance of the real data is the floor of what can be
resolved.
CS-C56: exp(E KL(p(y|x) || p(y))), 10 splits, as in the Inception score, over the classifier's 10 classes (at most 10).
"""

from __future__ import annotations

import argparse
import io
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

HERE = pathlib.Path(__file__).resolve().parent


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm; the shortcut subsamples and zero-pads (He et al. 2016, option A)."""

    def __init__(self, cin: int, cout: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.stride, self.pad = stride, (cout - cin) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(x + y)


class ResNet56(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for i, (cin, cout) in enumerate([(16, 16), (16, 32), (32, 64)], 1):
            blocks = [Block(cin, cout, 1 if cin == cout else 2)] + [Block(cout, cout, 1) for _ in range(8)]
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: (B,3,32,32), normalised. Returns features (B,160) and logits (B,10)."""
        h1 = self.layer1(F.relu(self.bn1(self.conv1(x))))
        h2 = self.layer2(h1)
        pooled = self.layer3(h2).mean((2, 3))
        parts = [pooled, h2.mean((2, 3)), h2.std((2, 3)), h1.mean((2, 3)), h1.std((2, 3))]
        return torch.cat(parts, 1), self.linear(pooled)


def load_extractor(device: str = "cpu", weights: pathlib.Path = HERE / "resnet56-4bfd9763.th") -> ResNet56:
    state = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
    net = ResNet56()
    net.load_state_dict({k.removeprefix("module."): v for k, v in state.items()})
    return net.to(device).eval()


@torch.no_grad()
def extract(net: ResNet56, images: np.ndarray, batch: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """images: uint8 (N,32,32,3) or (N,3,32,32). Returns float64 features (N,160) and class probabilities (N,10)."""
    if images.dtype != np.uint8:
        raise TypeError(f"images must be uint8, got {images.dtype}")
    if images.shape[-1] == 3:
        images = images.transpose(0, 3, 1, 2)
    if images.shape[1:] != (3, 32, 32):
        raise ValueError(f"images must be 3x32x32, got {images.shape[1:]}")
    device = next(net.parameters()).device
    mean = torch.tensor([0.485, 0.456, 0.406], device=device)[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225], device=device)[:, None, None]
    feats, probs = [], []
    for i in range(0, len(images), batch):
        x = torch.from_numpy(np.ascontiguousarray(images[i : i + batch])).to(device)
        f, logits = net((x.float() / 255 - mean) / std)
        feats.append(f.double().cpu().numpy())
        probs.append(logits.double().softmax(1).cpu().numpy())
    return np.concatenate(feats), np.concatenate(probs)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance of Gaussians fitted to the rows of a and b."""
    mu = a.mean(0) - b.mean(0)
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    w, v = np.linalg.eigh(ca)
    root = (v * np.sqrt(np.clip(w, 0, None))) @ v.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cb @ root), 0, None)).sum()
    return float(mu @ mu + np.trace(ca) + np.trace(cb) - 2 * cross)


def class_score(probs: np.ndarray, splits: int = 10) -> tuple[float, float]:
    """exp(E KL(p(y|x) || p(y))) over `splits` parts: mean and standard deviation."""
    scores = []
    for part in np.array_split(probs, splits):
        kl = part * (np.log(part + 1e-16) - np.log(part.mean(0) + 1e-16))
        scores.append(np.exp(kl.sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


def read_cifar(folder: pathlib.Path, split: str = "train") -> np.ndarray:
    """Reads the Parquet shards (`img.bytes`: lossless WebP). Returns uint8 (N,32,32,3)."""
    import pyarrow.parquet as pq
    from PIL import Image

    files = sorted(folder.glob(f"{split}-*.parquet"))
    if not files:
        raise FileNotFoundError(f"no {split}-*.parquet in {folder}")
    blobs = [r["bytes"] for f in files for r in pq.read_table(f, columns=["img"])["img"].to_pylist()]
    return np.stack([np.asarray(Image.open(io.BytesIO(b)).convert("RGB")) for b in blobs])


def read_images(path: pathlib.Path) -> np.ndarray:
    """An .npz/.npy of uint8 images, or a folder of PNG files. Returns uint8 images."""
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".npz":
        data = np.load(path)
        return data[data.files[0]]
    from PIL import Image

    files = sorted(file for file in path.rglob("*.png") if file.name != "grid.png")  # a picture of them
    if not files:
        raise FileNotFoundError(f"no PNG files in {path}")
    return np.stack([np.asarray(Image.open(f).convert("RGB")) for f in files])


class Reference:
    """Features of the real training set, computed once: `Reference(images, net).score(samples)`."""

    def __init__(self, real: np.ndarray, net: ResNet56):
        self.net = net
        feats, _ = extract(net, real)
        self.scale = feats.std(0)
        self.feats = feats / self.scale

    def score(self, fake: np.ndarray) -> dict[str, float]:
        feats, probs = extract(self.net, fake)
        score, spread = class_score(probs)
        return {
            "n": len(fake),
            "FD-C56": frechet_distance(self.feats, feats / self.scale),
            "CS-C56": score,
            "CS-C56 std": spread,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=pathlib.Path, required=True, help="folder of the Parquet shards")
    parser.add_argument("--fake", type=pathlib.Path, required=True, help=".npz/.npy of uint8 images, or a PNG folder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    reference = Reference(read_cifar(args.real), load_extractor(args.device))
    for name, value in reference.score(read_images(args.fake)).items():
        print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")


if __name__ == "__main__":
    main()
