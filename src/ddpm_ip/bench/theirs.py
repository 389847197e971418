"""diffusers as its users have it: the step of its example ``train_unconditional.py``, and ``DDPMPipeline``.

The network is theirs with the sizes of the configuration, which makes it the same network as ours.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator

from ddpm_ip.bench.measure import Step
from ddpm_ip.config import Config
from ddpm_ip.errors import ConfigError
from ddpm_ip.nn import UNetConfig

SCHEDULE_STEPS = 100_000  # of the learning rate's cosine; any number costs the same


def load() -> ModuleType:
    """The package diffusers.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import diffusers
        import diffusers.optimization
        import diffusers.training_utils
    except ImportError as error:
        raise ConfigError(
            f"diffusers cannot be measured, it does not load ({error}): pip install diffusers, or --against plain"
        ) from None
    module: ModuleType = diffusers
    return module


def train(config: Config, accelerator: Accelerator) -> Step:
    """One pass of the example's loop with its default settings: AdamW, cosine schedule, EMA with warm-up, clipping.

    The images lie on the device as floats already, in place of the example's loader, which favours diffusers. As there,
    the loss is read for the log in every step.
    """
    diffusers = load()
    network = _network(config)
    ema = diffusers.training_utils.EMAModel(
        network.parameters(),
        decay=0.9999,
        use_ema_warmup=True,
        inv_gamma=1.0,
        power=0.75,
        model_cls=diffusers.UNet2DModel,
        model_config=network.config,
    )
    noising = diffusers.DDPMScheduler(num_train_timesteps=config.diffusion.total_steps, beta_schedule="linear")
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    rate = diffusers.optimization.get_scheduler(
        "cosine", optimizer=optimizer, num_warmup_steps=500, num_training_steps=SCHEDULE_STEPS
    )
    network, optimizer, rate = accelerator.prepare(network, optimizer, rate)
    ema.to(accelerator.device)
    network.train()
    x0 = _images(config, accelerator)

    def step() -> float:
        eps = torch.randn(x0.shape, dtype=x0.dtype, device=x0.device)
        t = torch.randint(0, noising.config.num_train_timesteps, (len(x0),), device=x0.device)
        with accelerator.accumulate(network):
            predicted = network(noising.add_noise(x0, eps, t), t).sample
            loss = F.mse_loss(predicted.float(), eps.float())
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad()
        ema.step(network.parameters())
        logged: float = loss.detach().item()
        return logged

    return step


def sample(config: Config, evaluations: int, accelerator: Accelerator) -> Step:
    """One batch of images through ``DDPMPipeline`` in float32, as arrays in host memory."""
    diffusers = load()
    noising = diffusers.DDPMScheduler(num_train_timesteps=config.diffusion.total_steps, beta_schedule="linear")
    pipeline = diffusers.DDPMPipeline(unet=_network(config).eval(), scheduler=noising).to(accelerator.device)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator(accelerator.device).manual_seed(config.seed + accelerator.process_index)
    share = config.train.batch_size // accelerator.num_processes
    return lambda: (
        pipeline(batch_size=share, generator=generator, num_inference_steps=evaluations, output_type="numpy").images
    )


def _network(config: Config) -> Any:
    """``UNet2DModel`` as in google/ddpm-cifar10-32, with the sizes of the configuration.

    Raises:
        ConfigError: the configured network is none that diffusers has.
    """
    m = config.model
    if not isinstance(m, UNetConfig):
        raise ConfigError(f"diffusers has no network like model.name {m.name}: --against plain, or --model.name unet")
    widths = tuple(m.dim * mult for mult in m.dim_mults)
    torch.manual_seed(config.seed)
    return load().UNet2DModel(
        sample_size=config.shape[1:],
        in_channels=m.in_channels,
        out_channels=m.in_channels,
        layers_per_block=m.num_res_blocks,
        block_out_channels=widths,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in m.use_attn),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(m.use_attn)),
        downsample_padding=1 if m.padding == "both" else 0,
        flip_sin_to_cos=False,
        freq_shift=m.freq_shift,
        norm_eps=m.norm_eps,
        norm_num_groups=m.num_groups,
        attention_head_dim=m.head_channels or (None if m.n_heads == 1 else widths[-1] // m.n_heads),  # None: one head
        dropout=m.dropout,
    )


def _images(config: Config, accelerator: Accelerator) -> torch.Tensor:
    """This process's random images in [-1, 1], in the type that the example gives them."""
    share = config.train.batch_size // accelerator.num_processes
    shape = (share, *config.shape)
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(accelerator.mixed_precision, torch.float32)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=accelerator.device)
    return (pixels.float() / 127.5 - 1).to(dtype)
