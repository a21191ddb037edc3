"""Layout and events of the page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from ciea_hf.app.queries import DEFAULT_TOP_K, KINDS, TOP_KS, read_link
from ciea_hf.app.searching import Answer, Searcher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ciea_hf.app.systems import System

CACHE_SWEEP, CACHE_AGE = 3600, 86_400  # seconds: how often uploads are looked at, and how long they are kept
KIND_LABELS = {"all": "All", "image": "Images", "text": "Texts"}
ON_LOAD = Path(__file__).with_name("hits.js").read_text(encoding="utf-8")
SHARE = """(parameters) => {
    const query = parameters ? "?" + parameters : "";
    history.replaceState(null, "", location.pathname + query);
    if (window.innerWidth <= 760 && document.querySelector(".ciea-card")) {
        document.querySelector("#summary").scrollIntoView();  // otherwise the hits of a narrow screen are out of sight
    }
    return query ? location.origin + location.pathname + query : "";
}"""
SHOW_REASON = """() => {
    document.querySelectorAll(".ciea-card[aria-busy]").forEach((card) => card.removeAttribute("aria-busy"));
    const reason = document.querySelector("dialog.ciea-why:not([open])");
    if (reason) reason.showModal();
}"""


class _Components:
    """Inputs and outputs of the page, in the order of their layout."""

    def __init__(self, names: Sequence[str]) -> None:
        gr.HTML('<h1 class="ciea-heading">Search texts and images</h1>', elem_id="heading", apply_default_css=False)
        with gr.Row(elem_id="query", equal_height=True):
            with gr.Column(scale=3, min_width=280):
                self.text = gr.Textbox(
                    label="Text", lines=1, max_lines=4, autofocus=True, elem_id="text", placeholder="what you look for"
                )
                with gr.Row():
                    self.kind = gr.Radio(
                        [(KIND_LABELS[kind], kind) for kind in KINDS], value=KINDS[0], label="Find", elem_id="kind"
                    )
                    self.top_k = gr.Dropdown(
                        [(str(number), number) for number in TOP_KS], value=DEFAULT_TOP_K, label="Hits",
                        elem_id="top-k", filterable=False,
                    )  # fmt: skip
                self.button = gr.Button("Search", variant="primary", elem_id="search")
            with gr.Column(scale=1, min_width=200):
                self.image = _image_input()
        with gr.Row(elem_id="summary"):
            with gr.Column(scale=2, min_width=280):
                self.status = _html("status")
            with gr.Column(scale=1, min_width=280):
                self.link = gr.Textbox(
                    label="Link to this search", interactive=False, buttons=["copy"], elem_id="link", max_lines=1
                )
        with gr.Row(elem_id="columns"):
            self.columns = [_html(f"hits-{number}", js_on_load=ON_LOAD) for number in range(len(names))]
        self.reason = _html("reason")
        self.parameters = gr.Textbox(visible="hidden", elem_id="parameters")
        self.answer = gr.State()

    @property
    def query(self) -> list[Any]:
        """Inputs of a search."""
        return [self.text, self.image, self.kind, self.top_k]

    @property
    def results(self) -> list[Any]:
        """Outputs of a search."""
        return [self.answer, self.status, self.parameters, self.reason, *self.columns]


def create_page(systems: Sequence[System], max_pixels: int = 32_000_000) -> gr.Blocks:
    """Create the page.

    Args:
        systems: One model with its index, or two, which are shown side by side.
        max_pixels: Maximum number of pixels of an uploaded image.

    Returns:
        The page, for [`launch`]; its API has one function, `search`.
    """
    searcher = Searcher(systems, max_pixels)
    title = "Search with " + " and ".join(system.name for system in systems)
    with gr.Blocks(
        title=title, analytics_enabled=False, delete_cache=(CACHE_SWEEP, CACHE_AGE), fill_width=True
    ) as page:
        components = _Components([system.name for system in systems])
        _connect(page, components, searcher)
        _publish(components, searcher)
    return page


def _connect(page: gr.Blocks, components: _Components, searcher: Searcher) -> None:
    """Connect the events of the page to the searcher, without adding them to the API."""
    shared: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "model", "concurrency_limit": 1}

    def show(text: str, image: str | None, kind: str, top_k: float) -> list[Any]:
        return _shown(searcher.search(text, image, kind, top_k))

    # One event is computed at a time, in order: the result of a search replaces that of an earlier click.
    for number, column in enumerate(components.columns):
        column.click(
            _explain(searcher, number), components.answer, components.reason, show_progress="hidden", **shared
        ).then(None, js=SHOW_REASON, api_visibility="private")
    triggers = [
        components.text.submit, components.button.click, components.image.upload, components.kind.input,
        components.top_k.input,
    ]  # fmt: skip
    searched = gr.on(triggers, show, components.query, components.results, show_progress="minimal", **shared)
    opened = page.load(
        _read_url, None, [components.text, components.kind, components.top_k], api_visibility="private"
    ).then(show, components.query, components.results, show_progress="minimal", **shared)
    for event in (searched, opened):
        event.then(None, components.parameters, components.link, js=SHARE, api_visibility="private")


def _publish(components: _Components, searcher: Searcher) -> None:
    """Add `search` to the API."""

    def search(text: str, image: str | None, kind: str, top_k: float) -> dict[str, Any]:
        """Search with a text, an image, or both; returns the hits of each model."""
        try:
            return searcher.hits(text, image, kind, top_k)
        except (ValueError, TypeError) as error:
            raise gr.Error(str(error), print_exception=False) from error

    number = gr.Number(DEFAULT_TOP_K, label="Hits", precision=0, visible=False)
    inputs = [components.text, components.image, components.kind, number]
    gr.Button(visible=False).click(
        search, inputs, gr.JSON(visible=False), api_name="search", concurrency_id="model", concurrency_limit=1
    )


def _explain(searcher: Searcher, number: int) -> Callable[[Answer | None, gr.EventData], str]:
    """Return the function that explains a hit of one system."""

    def explain(answer: Answer | None, event: gr.EventData) -> str:
        return "" if answer is None else searcher.explain(answer, number, str(event.hit))

    return explain


def _shown(answer: Answer) -> list[Any]:
    """Return an answer as the outputs of a search; the explanation of an earlier hit is removed."""
    return [answer, answer.status, answer.link, "", *answer.columns]


def _read_url(request: gr.Request) -> tuple[str, str, int]:
    return read_link(dict(request.query_params))


def _html(name: str, js_on_load: str | None = None) -> gr.HTML:
    return gr.HTML("", elem_id=name, apply_default_css=False, js_on_load=js_on_load)


def _image_input() -> gr.Image:
    """Return an image input that hands over the uploaded file as it is, and does not fetch URLs.

    Gradio would decode the file on the way, with errors that users cannot read, and download an image of which it gets
    a URL. Methods of the instance are replaced, because gradio writes a file next to the source of any subclass.
    """
    image = gr.Image(
        label="Image", type="filepath", sources=["upload", "clipboard"], height=210, elem_id="image", buttons=[],
        image_mode=None,
    )  # fmt: skip
    move = image.async_move_resource_to_block_cache

    async def move_file(url_or_file_path: Any) -> str | None:
        if "://" in str(url_or_file_path):
            raise gr.Error("The image is a URL, and URLs are not fetched.", print_exception=False)
        path: str | None = await move(url_or_file_path)
        return path

    image.preprocess = lambda payload: None if payload is None else payload.path
    image.async_move_resource_to_block_cache = move_file
    return image
