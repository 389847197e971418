"""``ddpm-ip export --push NAME``: a folder goes to huggingface.co, by huggingface_hub if it is installed."""

from __future__ import annotations

import re
from pathlib import Path

from ddpm_ip.errors import ConfigError, UserError
from ddpm_ip.extras import how_to_install
from ddpm_ip.plain import reason, shown

NAMES = re.compile(r"(\w[\w.-]*/)?\w[\w.-]{0,95}", re.ASCII)  # of models there


def refuse_to_push(name: str) -> None:
    """Says before anything is exported if it could not be pushed.

    Raises:
        ConfigError: huggingface_hub is not installed, or no model can have this name.
    """
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise ConfigError(f"--push needs huggingface_hub: {how_to_install('hub')}, or leave --push out") from None
    if not NAMES.fullmatch(name):
        raise ConfigError(f"--push {name!r:.120}: a model is called USER/MODEL, of letters, digits, -, _ and .")


def push(folder: Path, name: str) -> str:
    """Uploads a folder as a model; an existing one of that name gets another commit, and loses nothing.

    Args:
        folder: an export.
        name: of the model, ``USER/MODEL`` or ``MODEL``.

    Returns:
        Its address.

    Raises:
        UserError: it cannot be uploaded; the folder is whole.
    """
    refuse_to_push(name)
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        repository = api.create_repo(name, repo_type="model", exist_ok=True)
        api.upload_folder(
            repo_id=repository.repo_id, folder_path=str(folder), commit_message="ddpm-ip export", repo_type="model"
        )
        return str(repository)
    except Exception as error:  # whatever a network, a token or a name makes it raise
        said = " ".join((reason(error) or type(error).__name__).split())[:300].rstrip(".")
        raise UserError(
            f"{shown(folder)} is whole, and was not pushed to {shown(name)}: {said}. Log in with `hf auth login`, "
            f"check the name (USER/MODEL) and the network, and then `hf upload {shown(name)} {shown(folder)}`"
        ) from error
