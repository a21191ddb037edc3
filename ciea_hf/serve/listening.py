"""The address that a server listens on."""

from __future__ import annotations

import ipaddress
import socket


def bind(host: str, port: int) -> socket.socket:
    """Reserve an address, before a model is loaded. Connections are refused until the socket listens.

    Args:
        host: Name or address.
        port: Port; 0 chooses a free one.

    Raises:
        OSError: If the host is unknown, or the address is in use; the message names it.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(listener: socket.socket) -> bool:
    """Return whether a bound socket can be reached from this machine alone."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback
