"""Run a command of `ciea` and record the hosts that it looks up or connects to: `python -m ... LOG COMMAND ...`."""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path
from typing import Any


def is_local(host: Any) -> bool:
    """Whether a host is this machine; sockets without a host are."""
    if not isinstance(host, str) or host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def main() -> int:
    log = Path(sys.argv[1])

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo":
            host = arguments[0]
        elif event == "socket.connect" and isinstance(arguments[1], tuple):
            host = arguments[1][0]
        else:
            return
        if not is_local(host):
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{event} {host}\n")

    sys.addaudithook(watch)  # before anything is imported that could use the network
    from ciea_hf.cli import main as ciea

    return ciea(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
