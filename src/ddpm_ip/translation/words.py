"""The words of xyfJASON's repository, and what each of them is here: tables, and nothing else."""

from __future__ import annotations

CLASS_UNET = "UNetCategorialAdaGN"
DEFAULTS = {  # what holds there, in our words, where a configuration says nothing else
    "seed": 2022,
    "diffusion.var_type": "fixed_large",
    "train.lr_warmup": 0,
    "train.ema_decay": 0.9999,
    "train.ema_warmup": True,
    "sampling.spacing": "uniform",
    "sampling.seed": 2022,
    "sampling.clip": "rederive",
}
UNET = {"model.padding": "both", "model.norm_eps": 1e-5}  # their U-Net is the paper's but for these
ADAGN = {"model.num_res_blocks": 2, "model.head_channels": 64, "model.dropout": 0.1}  # where adm has other defaults
WEIGHTS = "initial weights: the paper's, there PyTorch's"
CLASS_NETWORK = (
    "the class-conditional network is ADM's, which has the same blocks and adds class to time in the same way; but the "
    "middle has heads of model.head_channels, too, there one, and its time embedding begins with the cosines and has "
    "other frequencies, so weights of one are none of the other. The last layer of every branch begins at zero, there "
    "as PyTorch makes it"
)
HIDDEN = "each image's label is hidden by itself (classes.dropout), there those of a whole micro-batch at once"
PRECISION = "without a word about precision, bf16 on a GPU that has it, there float32 (--train.mixed_precision no)"
PREVIEWS = "previews take train.sample_steps steps with the small variance, there all steps with diffusion.var_type"
CELEBA = (
    "all images of the folder are trained on, there those of CelebA's training split (24,183 of 30,000, file numbers 1 "
    "to 162770): move the others away"
)

DIFFUSION = ("total_steps", "beta_schedule", "beta_start", "beta_end", "objective", "var_type")
SAME = (
    "seed", "data.root", "data.split", "data.download", "model.n_heads", "model.num_groups", "model.resblock_updown",
    *(f"model.{key}" for key in ("in_channels", "dim", "dim_mults", "use_attn", "num_res_blocks", "dropout")),
    *(f"diffusion.{key}" for key in DIFFUSION),
    *(f"train.{key}" for key in ("n_steps", "batch_size", "micro_batch", "clip_grad_norm", "ema_decay", "n_samples")),
    *(f"train.{often}_freq" for often in ("print", "save", "sample")),
    *(f"train.optim.{key}" for key in ("lr", "betas", "eps", "weight_decay")),
)  # fmt: skip
EARLIER = {  # names of earlier versions of that repository, by those of the last
    "data.dataroot": "data.root",
    "data.dataset": "data.target",
    "dataloader.micro_batch": "train.micro_batch",
    "model.type": "model.target",
    "model.attn_heads": "model.n_heads",
    "model.attn_groups": "model.num_groups",
    "model.resblock_groups": "model.num_groups",
    "model.ema_decay": "train.ema_decay",
    "model.ema_gradual": "train.ema_gradual",
    **{f"model.{key}": f"diffusion.{key}" for key in DIFFUSION},
    **{f"train.optimizer.{key}": f"train.optim.{key}" for key in ("lr", "betas", "eps", "weight_decay")},
    "train.optimizer.type": "train.optim.target",
    "train.optim.type": "train.optim.target",
    **{f"train.{key}.by_step": f"train.{key}" for key in ("print_freq", "save_freq", "sample_freq")},
}
PROGRAMS = ("sample", "sample_denoise", "sample_progressive", "sample_skip", "sample_interpolate", "evaluate")
LEFT_OUT = {  # nothing here needs them
    "dataloader": "images are staged without worker processes",
    "data.transform_type": "images are resized to data.image_size",
    "data.img_channels": "as model.in_channels",
    "model.out_channels": "the network has as many as it needs",
    "diffusion.device": "the launcher says it",
    "diffusion.cond_kwarg": "labels are all that there is",
    "train.resume": "an option: -r latest|best|PATH",
    "train.pretrained": "an option: -r PATH",
    **{f"train.{key}.by_epoch": "counted in steps" for key in ("print_freq", "save_freq", "sample_freq")},
    **{f"train.optim.{key}": "a matter of speed" for key in ("fused", "foreach", "capturable", "differentiable")},
    **dict.fromkeys(PROGRAMS, "options of the programs"),
}
IMPOSSIBLE = {
    "train.epochs": "a run is as long as train.n_steps says: give that",
    "diffusion.betas": "a schedule is chosen by diffusion.beta_schedule",
    "diffusion.respaced_seq": "times are chosen by sampling.steps and sampling.spacing",
}
DATA = {"cifar10": "cifar10", "mnist": "mnist", "celebahq": "folder", "imagedir": "folder"}
METHODS = {"DDPM": "none", "DDPM_IP": "input"}
GUIDED = ("DDPMCFG", "ClassifierFree", "GuidedFree")  # the same loss, and guidance in sampling
NETWORKS = {
    **dict.fromkeys(("models.unet.UNet", "models.UNet", "UNet", "unet"), "unet"),
    **dict.fromkeys((f"models.unet_categorial_adagn.{CLASS_UNET}", CLASS_UNET, "unet_categorial_adagn"), "adm"),
}
NETWORK_NAMES = f"models.unet.UNet or models.unet_categorial_adagn.{CLASS_UNET}"
NO_CLASSES = (
    f"classifier-free guidance needs a class-conditional network: model.target {CLASS_UNET} and model.num_classes"
)
SHOWN_CLASSES = 10  # in a preview
OF_CLASS_UNET = ("model.num_classes", "model.attn_head_dims", "model.resblock_updown")
RENAMED = {
    "data.img_size": "data.image_size",
    "train.ema_gradual": "train.ema_warmup",
    "model.attn_head_dims": "model.head_channels",
}
OFF = ("train.optim.amsgrad", "train.optim.maximize")  # what cannot be on here
SPECIAL = (
    "data.target", "model.target", "diffusion.target", "diffusion.gamma", "diffusion.clip_denoised",
    "diffusion.respace_type", "diffusion.respace_steps", "diffusion.guidance_scale", "train.ip_gamma",
    "train.optim.target", "train.p_uncond", "train.n_samples_each_class", "model.num_classes", "data.num_classes",
)  # fmt: skip
NAMES = {"data.target": "data.name", "model.target": "model.name", "diffusion.target": "perturbation.name"}
ALL = {*SAME, *RENAMED, *OFF, *SPECIAL, *IMPOSSIBLE}
