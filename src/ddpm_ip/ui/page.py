"""The page itself: gradio's controls around :mod:`ddpm_ip.ui.scene`, served to this machine alone.

Nothing is sent anywhere: gradio's statistics, its look for a newer version, its public links and its history are off,
its fonts are the system's, and what may be asked of it says :mod:`ddpm_ip.ui.door`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # it is asked for when gradio is imported
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "True"

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

from ddpm_ip.errors import ConfigError
from ddpm_ip.notebook import Run, load
from ddpm_ip.output import say, told
from ddpm_ip.plain import reason
from ddpm_ip.run.checkpoint import steps
from ddpm_ip.run.folder import RunFolder
from ddpm_ip.ui.choices import CORRECTION_EXAMPLES, SAMPLER_EXAMPLES, Choices
from ddpm_ip.ui.door import HOST, HOSTS, LONGEST, POLICY, refusal
from ddpm_ip.ui.scene import MOST_EVALUATIONS, MOST_IMAGES, Scene, Setting, whole
from ddpm_ip.ui.view import error_html, scene_html, waiting_html

WAITING = 8  # presses of the button that wait for the one that is shown
FIRST, SECOND = Setting(), Setting(corrections="epsilon_scaling,scale=1.01")
MOST_SEED = 1 << 53  # of whole numbers in a browser


def serve(folder: Path, port: int) -> None:
    """Serves the page until it is interrupted.

    Args:
        folder: with runs or files of weights; nothing outside it is read.
        port: of 127.0.0.1; 0 for any that is free.

    Raises:
        ConfigError: there is no such folder, or the port is taken.
    """
    choices = Choices(folder)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise ConfigError(f"--port {port} cannot be had ({reason(error)}): choose another one, or 0") from None
        say(f"http://{HOST}:{listening.getsockname()[1]}/ shows {choices.root}; Ctrl-C ends it")
        server = uvicorn.Config(application(choices), log_level="warning", timeout_graceful_shutdown=1)
        uvicorn.Server(server).run(sockets=[listening])


def application(choices: Choices) -> FastAPI:
    """The page as an ASGI application."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)

    async def guarded(request: Request, call_next: Any) -> Response:
        origin, length = request.headers.get("origin"), request.headers.get("content-length", "")
        body = await request.body() if length.isdecimal() and int(length) <= LONGEST else b""
        wrong = refusal(request.method, request.url.path, origin, body)
        if wrong is not None:
            return PlainTextResponse(wrong.text, wrong.status)
        response: Response = await call_next(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    app.middleware("http")(guarded)
    style = files("ddpm_ip.ui").joinpath("style.css").read_text(encoding="utf-8")
    system = ("system-ui", "sans-serif")
    theme = gr.themes.Default(font=system, font_mono=("ui-monospace", "monospace"))
    return gr.mount_gradio_app(
        app, blocks(choices), "/", server_name=HOST, footer_links=[], run_history=False, max_file_size=1, pwa=False,
        ssr_mode=False, enable_monitoring=False, mcp_server=False, root_path="", theme=theme, css=style,
    )  # fmt: skip


def blocks(choices: Choices) -> gr.Blocks:
    """The controls, and what they do."""
    stage = Stage(choices)
    with gr.Blocks(title="ddpm-ip: two settings, the same noise", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown("# Two settings, the same noise")
        with gr.Row():
            weights = gr.Dropdown(choices.names(), label="Weights", scale=3, allow_custom_value=True)
            n = gr.Number(9, precision=0, minimum=1, maximum=MOST_IMAGES, label="Images", min_width=80)
            seed = gr.Number(0, precision=0, minimum=0, label="Seed", min_width=80)
        with gr.Row():
            controls = [control for name, setting in (("A", FIRST), ("B", SECOND)) for control in side(name, setting)]
        with gr.Row():
            go = gr.Button("Sample", variant="primary", elem_id="go")
            stop = gr.Button("Stop", elem_id="stop")
        shown = gr.HTML(js_on_load=None, elem_id="stage")
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        running = go.click(stage.show, [weights, n, seed, *controls], shown, concurrency_limit=1, **quiet)
        stop.click(None, cancels=[running], **quiet)
        page.load(stage.listed, outputs=weights, **quiet)
    return page.queue(max_size=WAITING)


def side(name: str, setting: Setting) -> list[Any]:
    """The controls of a setting."""
    with gr.Column(min_width=300), gr.Group():
        with gr.Row():
            typed: dict[str, Any] = {"allow_custom_value": True}
            sampler = gr.Dropdown(
                SAMPLER_EXAMPLES, value=setting.sampler, label=f"{name}: sampler", min_width=140, **typed
            )
            steps = gr.Number(
                setting.steps, precision=0, minimum=1, maximum=MOST_EVALUATIONS, label=f"{name}: steps", min_width=80
            )
        corrections = gr.Dropdown(
            CORRECTION_EXAMPLES,
            value=setting.corrections,
            label=f"{name}: corrections",
            info="NAME,KEY=VALUE+NAME ...",
            **typed,
        )
    return [sampler, steps, corrections]


class Stage:
    """What the page does; the weights of one run are held, the last that were chosen.

    Args:
        choices: what may be chosen.
    """

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self._run: tuple[object, Run] | None = None

    def listed(self) -> Any:
        """The weights that there are now; the page asks when it is opened."""
        names = self._choices.names()
        return gr.Dropdown(choices=names, value=names[0] if names else None)

    def show(self, weights: Any, n: Any, seed: Any, *sides: Any) -> Iterator[str]:
        """Samples and shows; what a person can put right is said in the page.

        Args:
            weights: a name of :meth:`Choices.names`.
            n, seed: numbers.
            sides: sampler, steps and corrections of A, then of B.
        """
        try:
            settings = [Setting(*sides[i : i + 3]) for i in range(0, len(sides), 3)]
            chosen = self._choices.path(weights)
            n, seed = whole(n, "images", MOST_IMAGES), whole(seed, "seed", MOST_SEED)
            yield waiting_html("The weights are read ...")
            for seen in Scene(self._loaded(chosen), n, seed, settings).play():
                yield scene_html(seen)
        except Exception as error:
            found = told(error)
            if found is None:
                raise
            yield error_html(str(found))

    def _loaded(self, path: Path) -> Run:
        """A run as it stands now: while training continues, its newest checkpoint changes."""
        key = path, steps(RunFolder(path).checkpoints)
        if self._run is None or self._run[0] != key:
            self._run = None  # one network at a time
            self._run = key, load(path)
        return self._run[1]
