"""Throughput and latency of `ciea serve` on loopback, and its memory over time.

The service runs in a process of its own; the clients, in this process, use the same processors. Each scenario sends
requests for a fixed time, with a fixed number of connections that each wait for their response.

Examples:
  python -m benchmarks.serve                        # the model of `make demo`
  python -m benchmarks.serve --model runs/ciea/in_batch/best --seconds 30
  python -m benchmarks.serve --soak 10              # minutes of mixed load; reports the memory of the service
"""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from benchmarks.common.files import CIEA, make_parser, require_models, say, write_page
from benchmarks.common.http_load import SCENARIOS, Latencies, run_scenario, sample_memory
from ciea_hf.evaluation.report import text_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NAME = "serve.md"
PATIENCE = 60  # seconds until the service must have answered its last requests
MB = 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all scenarios, or the soak, and write the result.

    Args:
        arguments: Command-line arguments; those of the process if None.

    Returns:
        Exit status.
    """
    parser = make_parser("serve", __doc__)
    parser.add_argument("--model", default=CIEA, help=f"folder of the model (default: {CIEA})")
    parser.add_argument("--seconds", type=float, default=15, help="duration of each scenario (default: 15)")
    parser.add_argument("--soak", type=float, default=0, metavar="MINUTES", help="duration of the mixed load instead")
    parsed = parser.parse_args(arguments)
    require_models([parsed.model])
    with served(parsed.model) as (address, process):
        if parsed.soak:
            memory = asyncio.run(sample_memory(address, process.pid, parsed.soak * 60))
            write_page(parsed.output / "serve_soak.md", soak_page(memory, parsed.soak))
            return 0
        results = {}
        for name in SCENARIOS:
            asyncio.run(run_scenario(address, name, min(3.0, parsed.seconds)))  # the first requests are slower
            results[name] = asyncio.run(run_scenario(address, name, parsed.seconds))
            say(f"{name}: {results[name].rate:.0f} inputs per second, p99 {results[name].quantile(0.99):.3f} s")
    write_page(parsed.output / NAME, page(results, parsed.seconds))
    return 0


@contextmanager
def served(model: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start the service; yields its address and process.

    Args:
        model: Folder of the model.

    Raises:
        SystemExit: If the service does not start.
    """
    command = [sys.executable, "-m", "ciea_hf.cli", "serve", model, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.startswith("http://"):
                raise SystemExit("the service did not start")
            yield line.split()[0], process
        finally:
            process.terminate()
            process.wait(PATIENCE)


def page(results: Mapping[str, Latencies], seconds: float) -> str:
    """Generate the result page.

    Args:
        results: Latencies by scenario.
        seconds: Duration of each scenario.

    Returns:
        The page in Markdown.
    """
    lines = [["scenario", "connections", "inputs/s", "requests/s", "p50 ms", "p99 ms"]]
    for name, found in results.items():
        quantiles = [f"{1000 * found.quantile(share):.0f}" for share in (0.5, 0.99)]
        requests = len(found.seconds) / found.elapsed
        lines.append([name, str(SCENARIOS[name].connections), f"{found.rate:.0f}", f"{requests:.0f}", *quantiles])
    scenarios = "\n".join(f"- {name}: {scenario.description}" for name, scenario in SCENARIOS.items())
    processor = platform.processor() or platform.machine()
    return f"""# Service

`ciea serve` on loopback, {seconds:.0f} seconds per scenario; each connection sends its next request when it has its
response. Service and clients share {os.cpu_count()} cores ({processor}, torch {torch.__version__}).

{text_table(lines)}

{scenarios}

Rates and latencies of the mixture are those of its short requests, which long ones must not delay.
"""


def soak_page(memory: Sequence[float], minutes: float) -> str:
    """Generate the page of the soak.

    Args:
        memory: Resident memory of the service in bytes, at equal intervals.
        minutes: Duration.

    Returns:
        The page in Markdown.
    """
    quarter = max(1, len(memory) // 4)
    parts = [memory[start : start + quarter] for start in range(0, quarter * 4, quarter)]
    lines = [["quarter", "mean MB", "maximum MB"]]
    for number, part in enumerate(filter(None, parts), start=1):
        lines.append([str(number), f"{sum(part) / len(part) / MB:.0f}", f"{max(part) / MB:.0f}"])
    return f"""# Memory of the service under load

Resident memory of `ciea serve` during {minutes:g} minutes of mixed load.

{text_table(lines)}
"""


if __name__ == "__main__":
    sys.exit(main())
