"""The command line itself: help, users' errors, interruption."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from ciea_hf import __version__
from ciea_hf.choices import DATASET_FORMATS
from ciea_hf.cli import build_parser, main, subparsers
from ciea_hf.data.loading import FORMATS
from tests.support.commands import fails

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("cache")


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["evaluate", "--help"], ["search", "--help"], ["--version"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
    assert f"ciea {__version__}" in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from ciea_hf.cli import build_parser; build_parser();"
        "print([m for m in ('torch', 'transformers', 'datasets', 'numpy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "/no/model", "DATA"], "model /no/model not found"),
        (["evaluate", "MODEL", "/no/data"], "/no/data"),
        (["evaluate", "MODEL", "DATA", "--split", "dev"], "'dev'"),
        (["evaluate", "MODEL", "DATA", "--ks", "10", "--top-k", "5"], "top_k"),
        (["search", "MODEL", "DATA"], "at least one QUERY"),
        (["search", "MODEL", "DATA", "--query-id", "q9"], "no query 'q9'"),
    ],
)
def test_users_errors_are_one_line(
    arguments: list[str], message: str, model: str, dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"MODEL": model, "DATA": dataset}
    assert message in fails(capsys, *(names.get(a, a) for a in arguments))


def test_a_folder_without_a_model(tmp_path: Path, dataset: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "contains no model" in fails(capsys, "evaluate", str(tmp_path), dataset)


def test_bad_values_are_refused_by_the_parser(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "m", "d", "--ks", "0"])
    assert stop.value.code == 2
    assert "at least 1" in capsys.readouterr().err


def test_debug_shows_the_traceback(dataset: str) -> None:
    with pytest.raises(FileNotFoundError):
        main(["--debug", "evaluate", "/no/model", dataset])


def test_interruption_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ciea_hf.loading.load_dataset", interrupted)
    assert main(["evaluate", "m", dataset]) == 130
    assert capsys.readouterr().err == "ciea: interrupted\n"


def test_output_into_a_closed_pipe_is_not_an_error() -> None:
    code = "import sys, ciea_hf.cli as c, ciea_hf.commands.evaluate as e\n"
    code += "e.run = lambda a: [e.common.write('x' * 9999) for _ in range(99)] and 0\n"
    code += "sys.exit(c.main(['evaluate', 'm', 'd']))"
    command = f'{sys.executable} -c "{code}" | head -c 1 > /dev/null; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("closed", "status", "last"),
    [(">&-", 2, "ciea: error: standard output is closed"), ("2>&-", 2, ""), ("<&-", 2, "standard input is closed")],
)
def test_closed_streams_are_named_before_the_work(closed: str, status: int, last: str, model: str) -> None:
    command = f'"{sys.executable}" -m ciea_hf.cli encode "{model}" - --output /tmp/never.npy {closed}'
    done = subprocess.run(
        ["bash", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    assert last in (done.stderr.strip().splitlines() or [""])[-1]
    assert "Traceback" not in done.stderr


def commands() -> list[argparse.ArgumentParser]:
    """All commands and actions that run."""
    return [command for command in subparsers(build_parser()) if not subparsers(command)]


def test_every_command_has_a_description_and_examples_that_parse() -> None:
    parser = build_parser()
    for command in commands():
        assert (command.description or "").rstrip().endswith("."), command.prog
        assert command.epilog is not None, command.prog
        lines = [line.partition("#")[0].strip() for line in command.epilog.splitlines()[1:]]
        own = [line for line in lines if line.startswith(command.prog + " ")]
        assert own, command.prog
        for line in lines:
            if line.startswith("ciea "):
                parsed, rest = parser.parse_known_args(shlex.split(line)[1:])
                assert rest == []
                assert parsed.run


def test_one_option_means_one_thing() -> None:
    """An option of several commands has the same choices and type everywhere; defaults may differ."""
    seen: dict[str, tuple[object, ...]] = {}
    names: set[str] = set()
    for command in commands():
        for action in command._actions:
            for option in action.option_strings:
                names.add(option)
                meaning = (action.choices and tuple(action.choices), action.nargs, type(action))
                assert seen.setdefault(option, meaning) == meaning, (command.prog, option)
    assert not names & {"--json", "--to", "--images", "--texts", "--part", "--documents", "--out"}


def test_choices_and_defaults_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands():
        text = " ".join(command.format_help().split())
        for action in command._actions:
            if action.choices and action.option_strings:
                assert "{" + ",".join(map(str, action.choices)) + "}" in text, (command.prog, action.dest)
            if action.help and action.default not in (None, False, [], argparse.SUPPRESS) and action.option_strings:
                assert "(default: " in action.help, (command.prog, action.dest)


@pytest.mark.parametrize("position", [0, 1, 3])
def test_debug_shows_the_traceback_anywhere(position: int) -> None:
    arguments = ["evaluate", "/no/model", "demo"]
    arguments.insert(position, "--debug")
    with pytest.raises(FileNotFoundError):
        main(arguments)


def test_dry_run_and_output_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    for extra in (["--dry-run"], ["--output", "x"]):
        assert "must be given together" in fails(capsys, "push", "folder", "org/name", *extra)


def test_the_formats_of_the_command_line_are_those_of_the_readers() -> None:
    assert tuple(FORMATS) == DATASET_FORMATS


def test_completion_is_printed_for_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--print-completion", "bash"])
    assert stop.value.code == 0
    assert "--contact-sheet" in capsys.readouterr().out
