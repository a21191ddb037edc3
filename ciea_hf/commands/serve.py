"""Serve embeddings and searches over HTTP, for the clients of OpenAI, Voyage and Cohere.

The clients work with a changed base URL. The documentation of all routes is at /docs. Images are accepted as data only;
the service never fetches a URL. On SIGTERM, requests in progress are completed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ciea_hf import loading
from ciea_hf.commands import common

if TYPE_CHECKING:
    import argparse

HELP = "serve embeddings and searches over HTTP"
EXAMPLES = """
  ciea serve runs/ciea --index demo.index
  CIEA_API_KEY=secret ciea serve runs/ciea --host 0.0.0.0 --port 8080    # other machines, with a key
"""
API_KEY = "CIEA_API_KEY"
SERVER_MODULES = ("fastapi", "fastapi_offline", "uvicorn", "orjson", "prometheus_client")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help=common.MODEL_HELP)
    parser.add_argument(
        "--index", metavar="INDEX", help="folder or URL that `ciea index` has written, for POST /search"
    )
    common.add_address_arguments(parser, port=8000)
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help=f"file with the key that requests must present (default: the variable {API_KEY}, or no key)",
    )
    parser.add_argument("--device", help="device of the model, such as cpu or cuda:0 (default: the GPU, if available)")
    parser.add_argument("--batch-size", type=common.positive, default=64, help="inputs per forward pass (default: 64)")
    for option, default, text in (
        ("--max-batch-tokens", 8192, "tokens per forward pass, padding and image patches included"),
        ("--max-inputs", 2048, "inputs per request"),
        ("--max-queue", 8192, "waiting inputs, beyond which requests get status 429"),
        ("--max-body-mb", 32, "size of a request in MiB"),
        ("--max-image-mb", 16, "size of an encoded image in MiB"),
        ("--max-image-pixels", 32_000_000, "pixels of an image"),
        ("--timeout", 60, "seconds per request"),
    ):
        parser.add_argument(option, type=common.positive, default=default, help=f"{text} (default: {default})")


def run(arguments: argparse.Namespace) -> int:
    """Load the model and the index, and serve until SIGTERM or SIGINT."""
    from ciea_hf.utils import import_optional

    for module in SERVER_MODULES:
        import_optional(module, extra="serve")
    from ciea_hf.serve.engine import Engine
    from ciea_hf.serve.listening import bind, is_loopback, url_of
    from ciea_hf.serve.options import MEGABYTE, ServeOptions
    from ciea_hf.serve.searching import open_retriever
    from ciea_hf.serve.server import serve

    options = ServeOptions(
        model_name=Path(arguments.model).name,
        api_key=_api_key(arguments.api_key_file),
        batch_size=arguments.batch_size,
        max_batch_tokens=arguments.max_batch_tokens,
        max_inputs=arguments.max_inputs,
        max_queue=arguments.max_queue,
        max_body_bytes=arguments.max_body_mb * MEGABYTE,
        max_image_bytes=arguments.max_image_mb * MEGABYTE,
        max_image_pixels=arguments.max_image_pixels,
        timeout=arguments.timeout,
    )
    listener = bind(arguments.host, arguments.port)
    if options.api_key is None and not is_loopback(listener):
        sys.stderr.write(f"ciea: warning: {arguments.host} is open to other machines without a key; set {API_KEY}\n")
    model = loading.load_encoder(arguments.model, arguments.device)
    retriever = None if arguments.index is None else open_retriever(model, arguments.index)
    engine = Engine(model, options, retriever)
    listener.listen()  # before the address is printed, so that a reader of it can connect at once
    address = url_of(listener)
    common.write(f"{address}  {options.model_name}, {engine.dimension} dimensions; documentation at {address}/docs")
    sys.stdout.flush()
    serve(engine, listener)
    return 0


def _api_key(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(API_KEY) or None
    try:
        key = file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"--api-key-file: {file} is not UTF-8: {error}") from None
    if not key:
        raise ValueError(f"--api-key-file: {file} is empty")
    return key
