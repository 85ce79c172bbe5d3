"""What a new user meets: completion, what was meant, how much is said, colours, pipes, Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from conftest import Trained, aged, write_classes
from tlpipe.cli.completion import SHELLS
from tlpipe.cli.main import cli
from tlpipe.files import CARDS_VARIABLE
from tlpipe.near import did_you_mean, similar_file

POSIX = pytest.mark.skipif(os.name == "nt", reason="signals and pipes are another matter there")
BIN = Path(sys.executable).parent


def run(*arguments: object, env: dict[str, str] | None = None) -> Result:
    return CliRunner(env=env).invoke(cli, [str(argument) for argument in arguments])


def tlpipe(
    *arguments: object, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tlpipe", *map(str, arguments)]
    given = {**os.environ, **env}
    return subprocess.run(
        command, cwd=cwd, env=given, capture_output=True, text=True, encoding="utf-8", check=False
    )


@pytest.fixture
def desk(tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a new user has it after the first walk; the test is in it."""
    aged(write_classes(tmp_path / "photos", 4))
    (tmp_path / "my phötos").mkdir()
    shutil.copy(trained.features, tmp_path / "features.h5")
    shutil.copy(trained.classifier, tmp_path / "classifier.onnx")
    (tmp_path / "notes.txt").write_text("not to be offered")
    (tmp_path / "albums.csv").write_text("path,label,camera\nphotos/red/000.png,red,c1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- completion ------------------------------------------------------------------------------


def completed(*words: str) -> list[list[str]]:
    """What tlpipe answers a shell that asks for the last of these words, by zsh's protocol."""
    env = {
        "_TLPIPE_COMPLETE": "zsh_complete",
        "COMP_WORDS": "\n".join(["tlpipe", *words]),
        "COMP_CWORD": str(len(words)),
    }
    result = CliRunner(env=env).invoke(cli, [], prog_name="tlpipe")
    assert result.exit_code == 0, result.output
    return [line.split("\t") for line in result.stdout.splitlines()]


def words(*line: str) -> list[str]:
    return [value for kind, value, _ in completed(*line) if kind == "word"]


def test_commands_options_and_values_are_completed() -> None:
    assert words("cla") == ["classify"]
    assert words("models", "pu") == ["pull"]
    assert words("embed", "photos", "--devi") == ["--device"]
    assert words("embed", "photos", "--device", "") == ["auto", "cpu", "cuda", "tensorrt"]
    assert words("embed", "photos", "--device=c") == ["cpu", "cuda"]
    assert words("-q", "embed", "--verb") == ["--verbose"]
    assert completed("inspec") == [["word", "inspect", "Say what any of tlpipe's files holds."]]


def test_backbones_are_completed_the_users_own_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_card_path: Path
) -> None:
    monkeypatch.setenv(CARDS_VARIABLE, str(tmp_path))
    text = tiny_card_path.read_text(encoding="utf-8")
    own = text.replace('"tiny.test"', '"mine.test"').replace(
        '"tiny.onnx"', f'"{tiny_card_path.with_name("tiny.onnx").as_posix()}"'
    )
    (tmp_path / "mine.test.toml").write_text(own, encoding="utf-8")
    assert words("embed", "photos", "--backbone", "mi") == ["mine.test"]
    assert words("models", "pull", "efficientnet-lite0") == ["efficientnet-lite0.in1k"]
    assert completed("embed", "photos", "--backbone", "no-such") == [["file", ".onnx .toml", ""]]
    assert words("embed", "photos", "--preprocess", "ima") == ["imagenet"]


@pytest.mark.parametrize(
    ("line", "kind", "endings"),
    [
        (["train-head", ""], "file", ".h5 .hdf5"),
        (["train-head", "f.h5", "-o", ""], "file", ".onnx"),
        (["classify", ""], "file", ".onnx"),
        (["classify", "c.onnx", ""], "file", ""),
        (["classify", "c.onnx", "photos", "-o", ""], "file", ".csv .jsonl .parquet"),
        (["run", ""], "file", ".toml"),
        (["verify", ""], "file", ".onnx .h5 .hdf5"),
        (["import", ""], "file", ".parquet .npz .csv"),
        (["demo", "-o", ""], "folder", ""),
        (["compare", "a.h5", ""], "file", ".h5 .hdf5"),
    ],
)
def test_files_are_completed_by_kind(line: list[str], kind: str, endings: str) -> None:
    assert completed(*line) == [[kind, endings, ""]]


def paths_taken(group: click.Group) -> Iterator[tuple[str, click.Parameter]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from paths_taken(command)
        else:
            yield from ((f"{name} {param.name}", param) for param in command.params)


def test_every_file_of_a_command_is_completed() -> None:
    """A path whose type knows no kind would be completed to nothing."""
    context = click.Context(cli)
    for name, param in paths_taken(cli):
        takes_a_file = {"output", "features", "file", "source", "classifier", "job", "table"}
        if param.name in takes_a_file:
            kinds = {item.type for item in param.type.shell_complete(context, param, "")}
            assert kinds & {"file", "folder"}, name


def test_the_script_is_that_of_the_shell_one_uses() -> None:
    for shell in SHELLS:
        named = run("completion", shell)
        assert named.exit_code == 0
        assert f"_TLPIPE_COMPLETE{'=' if shell != 'fish' else ' '}{shell}_complete" in named.stdout
        assert named.stderr == ""  # a shell that evaluates it at its start says nothing
        found = run("completion", env={"SHELL": f"/usr/bin/{shell}"})
        assert found.stdout == named.stdout
    unknown = run("completion", env={"SHELL": "/bin/csh"})
    assert (unknown.exit_code, "'/bin/csh'" in unknown.stderr) == (2, True)
    assert "name one of bash, zsh, fish" in unknown.stderr


@POSIX
def test_a_terminal_is_told_where_the_script_belongs() -> None:
    shown, code = on_terminal("completion", "fish")
    assert code == 0
    assert "tlpipe completion fish > ~/.config/fish/completions/tlpipe.fish" in shown
    assert "To have it in every new shell" not in on_terminal("completion", "fish", "--quiet")[0]


BASH_REPLIES = r"""
compopt() { :; }  # which bash allows only while it completes
eval "$(tlpipe completion bash)"
reply() {
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    _tlpipe_completion tlpipe
    printf '%s|' "${COMPREPLY[@]}"; echo
}
reply tlpipe tra
reply tlpipe train-head ''
reply tlpipe train-head feat
reply tlpipe embed my
reply tlpipe classify classifier.onnx ph
reply tlpipe embed photos --backbone = alex
complete -p tlpipe
"""


@POSIX
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes(desk: Path) -> None:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH_REPLIES],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    commands, files, one, spaced, source, backbone, registered = done.stdout.splitlines()
    assert commands == "train|train-head|"
    assert sorted(files.split("|")) == ["", "features.h5", "my phötos", "photos"]
    assert one == "features.h5|"
    assert spaced == "my phötos|"
    assert "photos|" in source
    assert backbone == "alexnet.in1k|"
    assert registered == "complete -o nosort -F _tlpipe_completion tlpipe"
    assert done.stderr == ""


def typed(shell: list[str], setup: str, line: str, expected: str) -> str:
    """What a shell shows on a terminal for a line that ends with the tabulator."""
    import pty

    pid, fd = pty.fork()
    if pid == 0:
        os.environ |= {"TERM": "xterm", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        os.execvp(shell[0], shell)

    def until(text: str) -> str:
        shown = ""
        deadline = time.monotonic() + 60
        while text not in shown and time.monotonic() < deadline:
            if select.select([fd], [], [], 0.2)[0]:
                try:
                    shown += os.read(fd, 65536).decode(errors="replace")
                except OSError:
                    break
                if re.search(r"\x1b\[0?c", shown):  # fish asks what terminal this is
                    os.write(fd, b"\x1b[?62c")
                    shown = shown.replace("\x1b[c", "").replace("\x1b[0c", "")
        return shown

    try:
        os.write(fd, f"{setup}; echo rea''dy\r".encode())
        assert "ready" in until("ready")
        os.write(fd, line.encode())
        return until(expected)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(fd)


@POSIX
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "expected"),
    [("tlpipe train-head fea\t", "features.h5"), ("tlpipe cla\t", "classify")],
)
def test_a_shell_on_a_terminal_completes(desk: Path, shell: str, line: str, expected: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    how = {
        "bash": (["bash", "--norc", "-i"], 'eval "$(tlpipe completion bash)"'),
        "zsh": (
            ["zsh", "-f", "-i"],
            'autoload -U compinit && compinit -u -D; eval "$(tlpipe completion zsh)"',
        ),
        "fish": (["fish", "--no-config", "-i"], "tlpipe completion fish | source"),
    }
    assert expected in typed(*how[shell], line, expected)


# --- what was meant --------------------------------------------------------------------------


def test_near_names() -> None:
    known = ["efficientnet-lite0", "efficientnet-lite1", "resnet50", "cpu", "class_weight"]
    assert did_you_mean("resnet5", known) == "Did you mean 'resnet50'?"
    assert did_you_mean("RESNET-50", known) == "Did you mean 'resnet50'?"
    assert did_you_mean("class-wieght", known) == "Did you mean 'class_weight'?"
    both = "Did you mean 'efficientnet-lite0' or 'efficientnet-lite1'?"
    assert did_you_mean("efficientnet", known, most=4) == both
    assert did_you_mean("gpu", known) == ""  # of all things, the CPU is not meant
    assert did_you_mean("", known) == ""


def test_a_near_file(tmp_path: Path) -> None:
    (tmp_path / "features.h5").touch()
    wanted = str(tmp_path / "features.h5")
    assert similar_file(tmp_path / "feature.h5") == f"Did you mean {wanted!r}?"
    assert similar_file(tmp_path / "something else") == ""
    assert similar_file(tmp_path / "none" / "features.h5") == ""
    assert similar_file(Path("a\0b") / "c") == ""


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("clasify c.onnx photos -o p.csv", 2, "Did you mean 'classify'?"),
        ("models shw", 2, "Did you mean 'show'?"),
        ("embed photos -o x.h5 --devise cpu", 2, "'--device'"),
        ("embed photos -o x.h5 --device cudda", 2, "'tensorrt'. Did you mean 'cuda'?"),
        ("train-head features.h5 -o x.onnx --head centriod", 2, "Did you mean 'centroid'?"),
        ("models show efficientnet", 1, "Did you mean 'efficientnet-lite0' or"),
        ("models pull resnet", 1, "Did you mean 'resnet18-v1' or"),
        ("train-head feature.h5 -o x.onnx", 1, "Did you mean 'features.h5'?"),
        ("split feature.h5", 1, "Did you mean 'features.h5'?"),
        ("classify clasifier.onnx photos -o p.csv", 1, "Did you mean 'classifier.onnx'?"),
        ("verify clasifier.onnx", 1, "Did you mean 'classifier.onnx'?"),
        ("inspect feature.h5", 1, "Did you mean 'features.h5'?"),
        ("models inspect clasifier.onnx", 1, "Did you mean 'classifier.onnx'?"),
        ("embed fotos -o x.h5", 1, "Did you mean 'photos'?"),
        ("run albums.tml", 1, "No such file or directory."),
        ("import album.csv -o x.h5 --declare me", 1, "Did you mean 'albums.csv'?"),
        ("split features.h5 -o s.h5 --groups albums.csv:camra", 1, "Did you mean 'camera'?"),
        ("split features.h5 -o s.h5 --groups album.csv:camera", 1, "Did you mean 'albums.csv'?"),
        (
            "classify classifier.onnx albums.csv -o p.csv --columns camra",
            1,
            "Did you mean 'camera'?",
        ),
        # What stands in the wrong place, or is of another kind.
        ("train-head photos -o x.onnx", 1, "'tlpipe embed photos -o features.h5' makes a feature"),
        ("classify photos classifier.onnx -o p.csv", 2, "The classifier comes first."),
        ("evaluate photos classifier.onnx", 2, "The classifier comes first."),
        ("classify features.h5 photos -o p.csv", 2, "is a feature file, and no classifier."),
        ("inspect photos", 1, "The file 'photos' is a folder, not a file."),
        ("models inspect photos", 1, "The network 'photos' is a folder, not a file."),
        ("embed photos -o x.h5 --log-format json", 2, "--log-format stands before the command"),
        # What is missing.
        ("embed", 2, "For example: tlpipe embed photos/ -o features.h5"),
        ("train photos", 2, "For example: tlpipe train photos/ -o classifier.onnx"),
        ("models pull", 2, "For example: tlpipe models pull resnet50-v2"),
        ("embed photos/red photos/green -o x.h5", 2, "SOURCE is one thing: the folder that holds"),
        ("embed -q -v photos -o x.h5", 2, "--quiet and --verbose contradict each other"),
        ("-q embed -v photos -o x.h5", 2, "--quiet and --verbose contradict each other"),
    ],
)
def test_a_stumble_is_answered_with_what_helps(desk: Path, line: str, code: int, said: str) -> None:
    result = run(*line.split())
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr
    assert result.stdout == ""
    assert not (desk / "x.h5").exists()


def test_a_variable_that_is_not_set_is_no_folder(desk: Path) -> None:
    for line in (("embed", "", "-o", "x.h5"), ("embed", "photos", "-o", "")):
        result = run(*line)
        assert (result.exit_code, "it is empty; is a variable" in result.stderr) == (2, True)
    assert not (desk / "x.h5").exists()


def test_a_column_that_may_hold_the_paths_is_named(desk: Path) -> None:
    (desk / "m.csv").write_text("pth,label\nphotos/red/000.png,red\n")
    result = run("embed", "m.csv", "-o", "x.h5")
    assert "Call 'pth' 'path', if it holds the paths." in result.stderr


def test_a_path_at_home(desk: Path) -> None:
    """Shells leave "~" as it is behind "--option=" and in quotes."""
    env = {"HOME": str(desk), "USERPROFILE": str(desk)}
    result = run("export", "~/features.h5", "--output=~/out.csv", env=env)
    assert result.exit_code == 0, result.stderr
    assert (desk / "out.csv").exists()


def test_help_and_version_are_commands_too() -> None:
    assert run("help").output == run("--help").output
    assert run("help", "models", "pull").output == run("models", "pull", "--help").output
    assert run("version").output == run("--version").output


# --- how much is said ------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["before", "after"])
def test_quiet_says_nothing_but_what_is_wrong(desk: Path, tiny_card_path: Path, place: str) -> None:
    quiet = ["--quiet"] if place == "before" else []
    after = [] if quiet else ["-q"]
    backbone = ("--backbone", tiny_card_path)
    result = run(*quiet, "embed", "photos", "-o", "x.h5", *backbone, *after)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    trained = run(*quiet, "train-head", "x.h5", "-o", "x.onnx", *after)
    assert (trained.exit_code, trained.stderr) == (0, "")
    assert "accuracy" in trained.stdout
    (desk / "photos" / "red" / "broken.png").touch()
    again = run(*quiet, "embed", "photos", "-o", "x.h5", *backbone, *after)
    assert again.stderr.startswith("Rejected 1: 1 empty.")
    wrong = run(*quiet, "embed", "nowhere", "-o", "y.h5", *after)
    assert wrong.stderr.startswith("Error: The source 'nowhere' does not exist.")
    assert run("embed", "photos", "-o", "x.h5", *backbone).stderr.startswith("Found")  # as ever


def test_verbose_says_what_is_decided(desk: Path, tiny_card_path: Path) -> None:
    backbone = ("--backbone", tiny_card_path)
    usual = run("embed", "photos", "-o", "x.h5", *backbone)
    result = run("embed", "photos", "-o", "y.h5", *backbone, "--verbose")
    assert result.exit_code == 0, result.stderr
    decided = [line for line in result.stderr.splitlines() if line.startswith("[")]
    assert all(re.match(r"\[ *[0-9]+\.[0-9]{2} s\] [A-Z0-9]", line) for line in decided)
    text = "\n".join(decided)
    for said in (
        "Backbone 'tiny.test': 16 x 16 pixels, 8 numbers",
        "Of the images 12 are to be read, 0 have a row already",
        "precision fp32",
        "The prepared network is used again",
        "on CPUExecutionProvider in",
        "images per call of the network",
        "Embedded and stored in",
    ):
        assert said in text
    assert len(result.stderr.splitlines()) == len(decided) + len(usual.stderr.splitlines())
    update = run("-v", "embed", "photos", "-o", "y.h5", *backbone)
    assert "Of the images 0 are to be read, 12 have a row already" in update.stderr
    path = run("train-head", "y.h5", "-o", "y.onnx", "-v")
    assert path.exit_code == 0, path.stderr
    assert "rows train" in path.stderr
    assert "seed 0" in path.stderr


def test_verbose_names_every_setting_that_was_tried(trained: Trained, tmp_path: Path) -> None:
    result = run("train-head", trained.features, "-o", tmp_path / "c.onnx", "-v")
    assert result.exit_code == 0, result.stderr
    training = json.loads((tmp_path / "c.metrics.json").read_text())["training"]
    lines = re.findall(r"C = (\S+) on (\w+) embeddings: held-out log loss (\S+)\.", result.stderr)
    tried = [(f"{t['c']:.3g}", t["scaling"], f"{t['log_loss']:.4f}") for t in training["trials"]]
    assert lines == tried


def events(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_both_choose_among_the_events(desk: Path, tiny_card_path: Path) -> None:
    line = ("--log-format", "json", "embed", "photos", "--backbone", tiny_card_path)
    assert run(*line, "-o", "x.h5", "-q").stderr == ""
    (error,) = events(run(*line, "-o", "x.txt", "-q").stderr)
    assert (error["event"], error["level"]) == ("error", "error")
    found = events(run(*line, "-o", "y.h5", "-v").stderr)
    decided = [event for event in found if event["level"] == "debug"]
    assert {event["event"] for event in decided} == {"log"}
    assert any("images per call" in str(event["message"]) for event in decided)
    assert all(event["level"] != "debug" for event in events(run(*line, "-o", "z.h5").stderr))


# --- colours, width and pipes ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "coloured"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "x"}, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, False),
        ({"NO_COLOR": ""}, False),
    ],
)
def test_colours(env: dict[str, str], coloured: bool) -> None:
    plain = {"NO_COLOR": "", "FORCE_COLOR": "", "TERM": "xterm"} | env
    assert ("\x1b[" in tlpipe("models", "list", **plain).stdout) is coloured
    assert ("\x1b[" in tlpipe("models", "show", "none", **plain).stderr) is coloured


@POSIX
@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_on_a_terminal(env: dict[str, str], coloured: bool) -> None:
    shown, _ = on_terminal("models", "list", **env)
    assert ("\x1b[" in shown) is coloured
    shown, code = on_terminal("models", "show", "none", **env)
    assert code == 1
    assert ("\x1b[31m" in shown) is coloured


def on_terminal(*arguments: object, **env: str) -> tuple[str, int]:
    """What a command shows on a terminal, and its exit code."""
    import pty

    pid, fd = pty.fork()
    if pid == 0:
        for name in ("NO_COLOR", "FORCE_COLOR"):
            os.environ.pop(name, None)
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": "100", **env}
        os.execv(sys.executable, [sys.executable, "-m", "tlpipe", *map(str, arguments)])
    shown = b""
    while True:
        try:
            data = os.read(fd, 65536)
        except OSError:  # Linux's way of saying that the terminal is closed
            break
        if not data:
            break
        shown += data
    os.close(fd)
    return shown.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@POSIX
def test_a_table_fits_the_terminal_and_is_whole_in_a_pipe(desk: Path) -> None:
    long = "c" * 150
    (desk / "wide.csv").write_text(f"key,e0,label\na,1,{long}\nb,2,{'d' * 150}\n")
    done = tlpipe("import", "wide.csv", "-o", "wide.h5", "--declare", "me")
    assert done.returncode == 0, done.stderr
    piped = tlpipe("split", "wide.h5", "--check", COLUMNS="40").stdout.splitlines()
    assert piped[0].split() == ["class", "no", "split"]
    assert any(line.split() == [long, "1"] for line in piped)
    assert all(line == line.rstrip() for line in piped)
    shown, _ = on_terminal("split", "wide.h5", "--check", COLUMNS="60", NO_COLOR="1")
    assert max(map(len, shown.splitlines())) <= 60


@POSIX
@pytest.mark.parametrize(("columns", "header"), [("100", "blue green red"), ("34", "1 2 3")])
def test_the_columns_of_a_matrix_have_names_where_these_fit(
    desk: Path, columns: str, header: str
) -> None:
    line = ("evaluate", "classifier.onnx", "photos")
    shown, code = on_terminal(*line, COLUMNS=columns, NO_COLOR="1")
    assert code == 0, shown
    (first,) = [x for x in shown.splitlines() if x.startswith(" true ")]
    assert first.split()[3:] == header.split()


@POSIX
def test_a_live_bar_is_drawn_on_a_terminal_unless_one_wants_none(
    desk: Path, tiny_card_path: Path
) -> None:
    line = ("embed", "photos", "--backbone", tiny_card_path, "-o")
    shown, code = on_terminal(*line, "x.h5")
    assert (code, "Embedding" in shown, "12/12" in shown) == (0, True, True)
    dumb, code = on_terminal(*line, "y.h5", TERM="dumb")
    assert (code, "12/12" in dumb, "\x1b" in dumb) == (0, False, False)
    assert on_terminal(*line, "z.h5", "--quiet") == ("", 0)


@POSIX
@pytest.mark.parametrize(
    "line",
    [
        ("models", "list"),
        ("models", "show", "efficientnet-lite0"),
        ("inspect", "features.h5"),
        ("inspect", "features.h5", "--json"),
        ("verify", "features.h5"),
        ("doctor", "--json", "--backbone", "{card}"),
        ("split", "features.h5", "--check"),
        ("audit", "features.h5"),
        ("train-head", "features.h5", "-o", "new.onnx"),
        ("evaluate", "classifier.onnx", "photos"),
        ("completion", "bash"),
        ("--log-format", "json", "inspect", "features.h5"),
    ],
    ids=" ".join,
)
def test_a_reader_of_results_that_goes_away(
    desk: Path, tiny_card_path: Path, line: tuple[str, ...]
) -> None:
    """As in ``tlpipe ... | head -0``: no word of it, a code that says it, and files are written."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "tlpipe", *(w.format(card=tiny_card_path) for w in line)]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.returncode == 141, done.stderr
    assert "Error" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr
    assert "new.onnx" not in line or (desk / "new.onnx").exists()


@POSIX
@pytest.mark.parametrize("form", ["text", "json"])
def test_work_goes_on_where_nobody_listens(desk: Path, tiny_card_path: Path, form: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "tlpipe", "--log-format", form, "embed", "photos", "-v"]
    command += ["-o", "x.h5", "--backbone", str(tiny_card_path)]
    done = subprocess.run(command, stderr=writer, stdout=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stdout) == (0, b"")
    assert run("verify", "x.h5").exit_code == 0


@POSIX
def test_a_broken_pipe_elsewhere_is_an_error() -> None:
    code = (
        "import click\nfrom tlpipe.cli.main import cli\n"
        "@click.command('broken')\ndef broken(): raise BrokenPipeError(32, 'Broken pipe')\n"
        "cli.add_command(broken)\ncli(['broken'], prog_name='tlpipe')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, "Broken pipe" in done.stderr) == (1, True)


# --- Ctrl-C ----------------------------------------------------------------------------------

STOPS = """
import time
from tlpipe.cli.main import cli, main
import click

@click.command("long")
def long():
    try:
        print("begun", flush=True)
        {work}
    finally:
        print("unwound", flush=True)

cli.add_command(long)
main()
"""
COMPILED = (  # for minutes, in one call
    "import numpy; matrix = numpy.random.default_rng(0).normal(size=(5000, 5000));"
    " print('computing', flush=True); numpy.linalg.svd(matrix)"
)


@pytest.fixture(scope="module", autouse=True)
def heard() -> Iterator[None]:
    """Ctrl-C ends what the tests start, also where a shell had them ignore it: behind "&"."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def stoppable(work: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", STOPS.format(work=work), "long"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "begun\n"
            yield process
        finally:
            process.kill()


@POSIX
def test_the_first_ctrl_c_unwinds() -> None:
    with stoppable("time.sleep(60)") as process:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)  # a program that started this one passes it on
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "unwound\n")
    assert errors == "Interrupted. Outputs that were not finished were not written.\n"


@POSIX
def test_the_second_ctrl_c_ends_at_once_even_within_compiled_code() -> None:
    with stoppable(COMPILED) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "computing\n"
        time.sleep(1)  # until it does
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline().endswith("Ctrl-C again ends at once.\n")
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (130, "", "")


@POSIX
def test_compiled_code_that_fails_because_of_ctrl_c_was_interrupted() -> None:
    """Imports of compiled libraries make an ImportError of it."""
    work = (
        "time.sleep(60)\n    except KeyboardInterrupt: raise ImportError('numpy failed') from None"
    )
    with stoppable(work) as process:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "Interrupted. Outputs that were not finished were not written.\n"


PRESSES = """
import os, signal, sys
from tlpipe.cli.main import main

event, text, pressed = sys.argv.pop(1), sys.argv.pop(1), []

def press(name, given):
    if name == event and text in str(given[0]) and not pressed:
        pressed.append(True)
        os.kill(os.getpid(), signal.SIGINT)

sys.addaudithook(press)
main()
"""


@POSIX
@pytest.mark.parametrize(
    ("line", "event", "text"),
    [
        ("train-head features.h5 -o new.onnx", "open", "features.h5"),
        ("train-head features.h5 -o new.onnx", "open", ".tmp"),
        ("train-head features.h5 -o new.onnx", "import", "onnxruntime"),
        ("classify classifier.onnx photos -o p.csv", "open", "classifier.onnx"),
        ("evaluate classifier.onnx photos -o e.json", "open", "red/000.png"),
        ("evaluate classifier.onnx photos -o e.json", "open", ".tmp"),
        ("audit features.h5 -o a.json", "open", "features.h5"),
        ("audit features.h5 -o a.json", "open", ".tmp"),
        ("compare features.h5 other.h5 -o c.json", "open", "other.h5"),
        ("compare features.h5 other.h5 -o c.json", "open", ".tmp"),
        ("export features.h5 -o x.csv", "open", ".tmp"),
        ("merge features.h5 other.h5 -o m.h5", "open", "other.h5"),
        ("split features.h5 -o s.h5", "open", "features.h5"),
        ("verify features.h5", "open", "features.h5"),
        ("verify classifier.onnx", "open", "classifier.onnx"),
        ("models export --backbone {card} -o own.onnx", "open", ".tmp"),
        ("doctor --backbone {card}", "import", "onnxruntime"),
        ("inspect features.h5", "import", "h5py"),
    ],
)
def test_ctrl_c_leaves_nothing_behind(
    desk: Path, tiny_card_path: Path, line: str, event: str, text: str
) -> None:
    shutil.copy("features.h5", "other.h5")
    before = sorted(p.name for p in desk.iterdir())
    words = line.format(card=tiny_card_path).split()
    command = [sys.executable, "-c", PRESSES, event, text, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 130, done.stderr
    assert "Interrupted. Outputs that were not finished were not written.\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in desk.iterdir()) == before


@POSIX
def test_a_head_that_is_stopped_keeps_the_embeddings(desk: Path, tiny_card_path: Path) -> None:
    line = ["train", "photos", "-o", "new.onnx", "--backbone", str(tiny_card_path)]
    command = [sys.executable, "-c", PRESSES, "open", ".tlpipe-", *line]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 130, done.stderr
    kept = "All embeddings are kept in 'new.features.h5'; the same command uses them."
    assert kept in done.stderr
    again = run(*line)
    assert again.exit_code == 0, again.stderr
    assert "'new.features.h5' is up to date" in again.stderr
