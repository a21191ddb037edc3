"""Limits and settings of the service."""

from __future__ import annotations

from dataclasses import dataclass

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class ServeOptions:
    """Limits and settings of the service.

    Attributes:
        model_name: Name of the model in responses. Requests may name any model.
        api_key: Key that requests must present as a bearer token; `None` accepts all requests.
        batch_size: Maximum number of inputs per forward pass.
        max_batch_tokens: Maximum number of tokens per forward pass, padding and image patches included. It bounds
            how long a short request waits for a batch of long ones.
        max_inputs: Maximum number of inputs, or of queries, per request.
        max_top_k: Maximum number of hits per query.
        max_queue: Number of waiting inputs from which further requests are rejected with status 429.
        max_body_bytes: Maximum size of a request's body.
        max_pending_bytes: Total size of the bodies in progress from which further requests are rejected with 429.
        max_image_bytes: Maximum size of an encoded image.
        max_image_pixels: Maximum number of pixels of an image.
        max_pending_pixels: Maximum number of pixels of a request's images, and of those of all requests in progress,
            from which further requests are rejected with 429. A pixel takes 3 bytes of memory.
        timeout: Seconds after which a request is given up with status 503.
        drain_timeout: Seconds that requests in progress may take after SIGTERM.

    Raises:
        ValueError: If a limit is not positive, or `api_key` is empty.
    """

    model_name: str = "ciea"
    api_key: str | None = None
    batch_size: int = 64
    max_batch_tokens: int = 8192
    max_inputs: int = 2048
    max_top_k: int = 1000
    max_queue: int = 8192
    max_body_bytes: int = 32 * MEGABYTE
    max_pending_bytes: int = 512 * MEGABYTE
    max_image_bytes: int = 16 * MEGABYTE
    max_image_pixels: int = 32_000_000
    max_pending_pixels: int = 256_000_000
    timeout: float = 60.0
    drain_timeout: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int | float) and value <= 0:
                raise ValueError(f"`{name}` must be positive; got {value}")
        if self.api_key is not None and not self.api_key.strip():
            raise ValueError("`api_key` must not be empty; without a key, leave it out")
