"""What all commands have in common: options, exit codes, standard streams. New commands are found by name."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import shellingham
import typer
from PIL import Image
from typer.testing import CliRunner

from child_processes import interruptible
from pellucid import cli
from pellucid.commands import process, terminal
from pellucid.commands.terminal import MessageStyle, print_error, print_info, print_warning, set_message_style
from pellucid.errors import PictureError

COMMANDS: dict[str, Any] = vars(typer.main.get_command(cli.app))["commands"]
WITHOUT_RESULT = {"serve"}
ROOT = Path(__file__).parent.parent


def options_of(command: str) -> dict[str, Any]:
    """Option -> parameter."""
    return {option: parameter for parameter in COMMANDS[command].params for option in parameter.opts}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_common_options(command: str) -> None:
    options = options_of(command)
    assert options.keys() >= {"--quiet", "-q", "--verbose", "-v", "--log-format"}
    if command not in WITHOUT_RESULT:
        assert options.keys() >= {"--json", "--overwrite"}
        assert not options["--json"].is_flag, "--json takes a FILE"
    for parameter in COMMANDS[command].params:
        assert parameter.help, f"{parameter.name} has no help text"


def closed_options() -> Iterator[tuple[str, str]]:
    """Options whose values are numbers or one of a few words."""
    for command, found in COMMANDS.items():
        for parameter in found.params:
            is_closed = re.search(r"annotation=(<class '(int|float)'>|typing.Literal)", str(vars(parameter)))
            if parameter.opts[0].startswith("--") and is_closed:
                yield command, parameter.opts[0]


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command: exit code, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pellucid", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    return run


def test_there_are_options_with_closed_values() -> None:
    assert len(list(closed_options())) > 15


@pytest.mark.parametrize(("command", "option"), list(closed_options()))
def test_a_value_that_an_option_cannot_have_is_exit_code_2(command: str, option: str, call: Call) -> None:
    code, out, err = call(command, option, "x!")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert f"pellucid: x! is not possible; {option} can be " in err and f"see 'pellucid {command} --help'" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["restore", "--quality", "200"],
            "200 is not possible; --quality can be a whole number from 1 to 100; see",
        ),
        (
            ["restore", "--quality", "9.5"],
            "9.5 is not possible; --quality can be a whole number from 1 to 100; see",
        ),
        (["restore", "--strength", "nan"], "nan is not possible; --strength can be a number from 0 to 1; see"),
        (["serve", "--keep-hours", "0"], "0 is not possible; --keep-hours can be a number of 0.01 or more; see"),
        (["plot", "a", "--against", "x"], "x is not possible; --against can be step or time; see 'pellucid plot"),
    ],
)
def test_a_range_is_stated_with_the_value_that_was_found(arguments: list[str], message: str, call: Call) -> None:
    code, _, err = call(*arguments)
    assert code == 2 and err.startswith(f"pellucid: {message}")


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (command, option)
        for command in COMMANDS
        for option, parameter in options_of(command).items()
        if option.startswith("--") and not parameter.is_flag and not parameter.multiple
    ],
)
def test_an_option_with_one_value_cannot_be_given_twice(command: str, option: str, call: Call) -> None:
    code, out, err = call(command, option, "1", f"{option}=2")
    assert (code, out) == (2, "") and f"pellucid: {option} 2: {option} 1 is given, too; omit one; see" in err


def test_a_file_whose_name_looks_like_an_option_gets_a_hint(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-dash.png").touch()
    code, _, message = call("restore", "-dash.png", "--model", "srcnn-x2")
    assert code == 2 and "No such option: -d; if you mean the file, write ./-dash.png" in message


def test_a_value_that_looks_like_an_option_is_not_one(call: Call) -> None:
    _, _, err = call("restore", "name", "name", "--quality=1", "--name=model", "--model", "name")
    assert "no model 'name'" in err  # arguments that are called like a parameter
    _, _, err = call("restore", "gone.png", "--model", "--out", "--out", "a.png", "--", "--out", "b.png")
    assert "is given, too" not in err


@pytest.mark.parametrize(
    ("command", "option"),
    [(command, option) for command in COMMANDS for option in options_of(command) if option.startswith("--")],
)
def test_an_empty_value_of_any_option_is_exit_code_2(command: str, option: str, call: Call) -> None:
    code, out, err = call(command, f"{option}=")
    assert (code, out) == (2, "") and err.count("\n") == 1 and option in err


@pytest.mark.parametrize("option", ["--install-completion", "--show-completion"])
def test_completion_takes_no_other_arguments(
    option: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    code, _, err = call(option, "nosuch")
    assert code == 2 and f"{option} takes no other arguments, and 'nosuch' is given" in err
    assert list(tmp_path.iterdir()) == []


def test_completion_without_a_known_shell_is_one_line(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for detected in (("tcsh", "/bin/tcsh"), None):
        monkeypatch.setattr(shellingham, "detect_shell", lambda found=detected: found or _raise_no_shell())
        code, out, err = call("--install-completion")
        assert (code, out) == (1, "") and err.count("\n") == 1 and "completion is for bash, zsh" in err
    assert list(tmp_path.iterdir()) == []


def _raise_no_shell() -> Any:
    raise shellingham.ShellDetectionFailure


def test_completion_is_for_the_command_pellucid(tmp_path: Path) -> None:
    """Also if Python runs the module, whose name is no command."""
    commands = [f"python -m pellucid --{what}-completion" for what in ("show", "install")]
    script = "; ".join([*commands, 'ls "$HOME"/.bash_completions'])
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert "complete -o default -F _pellucid_completion pellucid" in done.stdout
    assert done.stdout.endswith("pellucid.sh\n")


def test_the_documented_exit_codes_are_those_of_the_program() -> None:
    page = (ROOT / "docs" / "scripting.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE)
    assert {int(code): meaning.replace("\\|", "|") for code, meaning in rows} == process.EXIT_CODES


def test_no_command_chooses_an_exit_code_of_its_own() -> None:
    found = set()
    for path in Path(cli.__file__).parent.rglob("*.py"):
        found |= set(re.findall(r"(?:typer\.Exit|SystemExit|sys\.exit)\((\d+)\)", path.read_text()))
    assert {int(code) for code in found} <= process.EXIT_CODES.keys()


def test_messages_are_json_if_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        set_message_style(MessageStyle(as_json=True, verbose=True))
        print_info("a\nb")
        error = PictureError("odd", hint="try {out}")
        error.__cause__ = ValueError("why")
        print_error(error)
    finally:
        set_message_style(MessageStyle())
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["level"], line["message"]) for line in lines] == [
        ("info", "a b"),
        ("error", "odd; try --out"),
        ("detail", "caused by ValueError: why"),
    ]


def test_the_middle_of_very_long_names_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_error(PictureError(f"{'a' * 5000}.png does not exist"))
    shown = capsys.readouterr().err
    assert len(shown) < 300 and shown.endswith("aaa.png does not exist\n")
    name = "/".join(["folder with spaces"] * 30)
    terminal.print_error(PictureError(f"{name} does not exist"))
    assert name in capsys.readouterr().err


def test_quiet_keeps_warnings_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        set_message_style(MessageStyle(quiet=True))
        print_info("info")
        print_warning("odd")
        print_error("bad")
    finally:
        set_message_style(MessageStyle())
    assert capsys.readouterr().err == "warning: odd\npellucid: bad\n"


def test_quiet_counts_in_all_threads(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        set_message_style(MessageStyle(quiet=True))
        thread = Thread(target=print_info, args=["3 of 7 pictures"])
        thread.start()
        thread.join()
        assert capsys.readouterr().err == ""
    finally:
        set_message_style(MessageStyle())


def test_quiet_and_verbose_exclude_each_other() -> None:
    result = CliRunner().invoke(cli.app, ["recipes", "-q", "-v"])
    assert result.exit_code == 2 and "exclude each other" in result.output


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.png"), "a.png: No space left on device"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device: on the disk of the output"),
        (FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"), "environment variable TMPDIR"),
    ],
)
def test_errors_of_the_system_name_the_place(
    error: OSError, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(SystemExit, match="1"):
        process.run(fail)
    line = capsys.readouterr().err
    assert message in line and "None" not in line and line.count("\n") == 1


def test_a_deleted_folder_is_named() -> None:
    result = run_shell("cd $(mktemp -d) && rmdir $PWD && pellucid models srcnn-x2")
    assert result.returncode == 1
    assert result.stderr == "pellucid: the current folder has been deleted; change to another one\n"


def run_shell(command: str) -> subprocess.CompletedProcess[str]:
    """A command line in which `pellucid` is the program."""
    program = f'"{sys.executable}" -m pellucid'
    line = re.sub(r"\bpellucid\b", program, command)
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)


def test_control_characters_in_names_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "\x1b[2J\x9b31ma\x07.png"
    print_warning(name)
    table = terminal.table("name")
    terminal.add_row(table, name)
    terminal.print_table(table)
    output = "".join(capsys.readouterr())
    assert output.count("\\x1b[2J\\x9b31ma\\x07.png") == 2
    assert not {"\x1b", "\x9b", "\x07"} & {*output}


def test_text_that_reverses_the_order_of_letters_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_line("gnp.\u202etxt\u2066 \u05d0 \x1b[31m")
    assert capsys.readouterr().out == "gnp.\\u202etxt\\u2066 \u05d0 \\x1b[31m\n"


def test_commands_print_lines_without_control_characters() -> None:
    for path in Path(terminal.__file__).parent.glob("*.py"):
        assert path.name == "terminal.py" or "typer.echo(" not in path.read_text(), f"{path.name}: print_line"


def test_names_of_results_are_bytes_for_programs_and_escaped_for_a_terminal(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "\x1b[31mred\udcff\n.png"
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", open(1, "w", closefd=False))  # noqa: SIM115  # the captured descriptor
        terminal.print_name(name)
    assert capfdbinary.readouterr().out == b"\x1b[31mred\xff\n.png\n"
    assert terminal.escape(name) == "\\x1b[31mred\\xff\\x0a.png"


def test_a_command_that_does_not_exist_is_suggested_in_one_sentence() -> None:
    result = run_shell("pellucid restor a.png")
    line = "pellucid: No such command 'restor'; did you mean 'restore'? See 'pellucid --help'\n"
    assert (result.returncode, result.stderr) == (2, line)


@pytest.mark.parametrize(
    "arguments", ["evaluate srcnn-x2 --model srcnn-x2 --data .", "plot run ./run", "plot run run"]
)
def test_what_is_given_twice_is_refused(
    arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = call(*arguments.split())
    assert code == 2 and "is given twice; omit one" in error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", ["recipes", "recipes --json -", "--version", "recipes --help"])
def test_output_to_a_full_disk_is_one_line(arguments: str) -> None:
    result = run_shell(f"pellucid {arguments} > /dev/full")
    assert (result.returncode, result.stderr) == (1, "pellucid: standard output: No space left on device\n")


@pytest.mark.parametrize("arguments", ["recipes", "recipes --json -"])
def test_closed_standard_output_is_one_line(arguments: str) -> None:
    result = run_shell(f"pellucid {arguments} >&-")
    assert (result.returncode, result.stderr) == (
        1,
        "pellucid: standard output is closed; redirect it, e.g. to a file\n",
    )


def test_closed_standard_error_and_input_do_not_matter(tmp_path: Path) -> None:
    result = run_shell(
        f"pellucid recipes nosuch 2>&- <&-; echo $?; pellucid recipes --json {tmp_path}/a >&- 2>&- <&-"
    )
    assert result.stdout == "2\n" and result.stderr == ""
    assert json.loads((tmp_path / "a").read_text())  # not written to by something else that has descriptor 1


@pytest.mark.parametrize("arguments", ["recipes", "recipes --json -", "recipes --help"])
def test_a_broken_pipe_is_silent(arguments: str) -> None:
    """The exit code is that of programs that SIGPIPE ends: 128 + 13."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "pellucid", *arguments.split()]
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, b"")


def test_a_command_leaves_the_handling_of_signals_as_it_was(call: Call) -> None:
    """For programs that call it, e.g. tests."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert call("recipes")[0] == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_little_is_loaded_before_signals_are_handled() -> None:
    """Until then, Python prints a traceback."""
    program = "import sys; before = {*sys.modules}; import pellucid.__main__; print(*{*sys.modules} - before)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(result.stdout.split()) <= {"pellucid", "pellucid.__main__"}


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay_s", [0.01, 0.04, 0.16, 0.32, 0.64])
def test_an_early_signal_leaves_no_traceback(stop: signal.Signals, delay_s: float) -> None:
    """From the moment on that the code of pellucid runs. `bench` loads everything."""
    program = "import sys; sys.argv[1:] = ['bench', 'sid-any']; "
    program += "from pellucid.__main__ import main; print(flush=True); main()"
    command = interruptible([sys.executable, "-c", program])
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(delay_s)
    child.send_signal(stop)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (128 + stop, "")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("restore a.png --model srcnn-x2 --timeout 0", "0.0 is not possible; --timeout can be a number above 0"),
        ("restore a.png --model srcnn-x2 --memory 0", "--memory 0: expected a size above 0"),
        ("restore a.png --model srcnn-x2 --format foo", "the format foo cannot be written; known: png"),
        ("restore a.png --model srcnn-x2 --bit-depth 12", "bit depth 12 is not supported; known: 8, 16, 32"),
        ("restore a.png --model srcnn-x2 --white nan", "nan is not possible; --white can be a number above 0"),
        ("restore a.png --model srcnn-x2 --include *.tif", "patterns are for folders, and no folder was given"),
    ],
)
def test_values_that_cannot_be_are_exit_code_2(
    arguments: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    code, _, error = call(*arguments.split())
    assert code == 2 and line in error


def test_no_arguments_print_the_help_and_nothing_else(call: Call) -> None:
    code, _, error = call()
    assert code == 2 and not error.strip()


@pytest.mark.parametrize("extra", [[], ["--overwrite"]])
def test_devices_are_neither_read_nor_replaced(extra: list[str], tmp_path: Path, call: Call) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    code, _, error = call("restore", str(tmp_path / "a.png"), "--model", "srcnn-x2", "--json", "/dev/full", *extra)
    assert (
        code == 1 and "/dev/full is a device or a pipe, not a file" in error and Path("/dev/full").is_char_device()
    )
