"""The page: what it is made of, what it does with an upload, and the server that shows it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import gradio
import uvicorn
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from boneage.app.show import (
    show_about,
    show_head,
    show_nothing,
    show_problem,
    show_reading,
)
from boneage.data.dicom import Film
from boneage.data.images import FORMATS, image_name
from boneage.errors import UserError
from boneage.model_folder import TrainedModel
from boneage.predictor import Patient, Predictor

SEXES = {"From file": None, "Female": False, "Male": True}
FROM_FILE = next(iter(SEXES))

_LARGEST = "200mb"
# Uploads that nobody asked to have read are looked for and deleted at this interval and age, in
# seconds.
_ABANDONED = (60, 600)
_PAGES = 8
_FONTS = (
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "Helvetica Neue",
    "Arial",
    "sans-serif",
)
# A browser that is told this loads nothing from elsewhere, whatever the page asks for.
_POLICY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; form-action 'self'"


class ImageReader:
    """Reads uploads, and keeps the last image of each open page, to read it again.

    Args:
        predictor: The networks.
    """

    def __init__(self, predictor: Predictor):
        self.predictor = predictor
        self.films: OrderedDict[str, tuple[str, Film]] = OrderedDict()

    def upload(self, path: str | None, sex: str, request: gradio.Request) -> tuple[None, str]:
        """Read an uploaded file, and delete it.

        Args:
            path: Where the upload lies.
            sex: One of `SEXES`.
            request: Tells which page it comes from.

        Returns:
            Nothing, which empties the drop area, and what the page shows.
        """
        self.forget(request)
        if path is None:
            return None, show_nothing()
        file = Path(path)
        try:
            film = self.predictor.film(Patient(file))
        except UserError as error:
            return None, show_problem(str(error).removeprefix(f"{file}: "))
        finally:
            file.unlink(missing_ok=True)
        self.films[_page(request)] = image_name(file), film
        while len(self.films) > _PAGES:
            self.films.popitem(last=False)
        return None, self.read(sex, request)

    def read(self, sex: str, request: gradio.Request) -> str:
        """Read the image of a page by a sex of `SEXES`."""
        if _page(request) not in self.films:
            return show_nothing()
        (name, film), male = self.films[_page(request)], SEXES[sex]
        chosen = film if male is None else film._replace(male=male)
        (reading,) = self.predictor.read([name], [chosen])
        return show_reading(reading, sex_chosen=male is not None)

    def forget(self, request: gradio.Request) -> None:
        """Keep the image of a page no longer."""
        self.films.pop(_page(request), None)


def _page(request: gradio.Request) -> str:
    return str(request.session_hash)


def make_page(reader: ImageReader, model: TrainedModel) -> gradio.Blocks:
    """The page: on the left what is asked for, on the right what is read."""
    with gradio.Blocks(title="Bone age", analytics_enabled=False, delete_cache=_ABANDONED) as page:
        gradio.HTML(show_head(), apply_default_css=False)
        with gradio.Row():
            with gradio.Column(scale=2, min_width=320):
                file = gradio.File(label=f"Radiograph ({FORMATS})", elem_id="file", height=180)
                sex = gradio.Radio(list(SEXES), value=FROM_FILE, label="Sex", elem_id="sex")
            with gradio.Column(scale=5, min_width=320):
                answer = gradio.HTML(show_nothing(), apply_default_css=False)
        gradio.HTML(show_about(model), apply_default_css=False)
        # The networks read one image at a time.
        turn: dict[str, Any] = {"concurrency_id": "networks", "concurrency_limit": 1}
        file.upload(reader.upload, [file, sex], [file, answer], api_visibility="private", **turn)
        sex.change(reader.read, sex, answer, api_visibility="private", **turn)
        page.unload(reader.forget)
    return page


class SelfContained:
    """Answers with a policy that forbids the page to load anything from elsewhere."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, and its answer back."""

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = _POLICY
            await send(message)

        await self.app(scope, receive, answer)


def make_app(predictor: Predictor, model: TrainedModel) -> FastAPI:
    """The page as a web application, which reports to nobody and loads nothing from elsewhere."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(SelfContained)
    style = (Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    page = make_page(ImageReader(predictor), model)
    # Until then, Gradio takes any file of the machine for an upload that is to be read.
    page.has_launched = True
    return gradio.mount_gradio_app(
        app,
        page,
        path="/",
        theme=gradio.themes.Default(
            primary_hue="blue", neutral_hue="slate", font=_FONTS, font_mono="monospace"
        ),
        head=f"<style>{style}</style>",
        max_file_size=_LARGEST,
        footer_links=[],
        # It would keep images in the browser.
        run_history=False,
        enable_monitoring=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
    )


class Server(uvicorn.Server):
    """A server that ends although pages are open: each holds a connection that has no end."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end."""
        for route in self.config.app.routes:
            if isinstance(route, Mount):
                route.app.stop_event.set()
        super().handle_exit(sig, frame)


def serve(model: TrainedModel, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Show the page until it is interrupted.

    Args:
        model: The model that reads.
        host: The address to listen on.
        port: The port.
        ready: Called with the page's address once it can be opened.

    Raises:
        UserError: If that address cannot be listened on.
    """
    predictor = Predictor(model)
    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]
        raise UserError(f"{host}, port {port}: cannot listen there ({reason})") from None
    with (
        listener,
        # Nobody else may look into the folder of uploads.
        tempfile.TemporaryDirectory(prefix="boneage-") as uploads,
        contextlib.suppress(KeyboardInterrupt),
    ):
        os.environ["GRADIO_TEMP_DIR"] = uploads
        app = make_app(predictor, model)
        server = Server(uvicorn.Config(app, log_level="warning", access_log=False))
        # Ended by the system, or with its terminal, it clears up as it does when interrupted.
        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), server.handle_exit)
        ready(f"http://{host}:{port}")
        server.run(sockets=[listener])
