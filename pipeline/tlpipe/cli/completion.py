"""``tlpipe completion``: the scripts by which shells complete commands, options, names and files.

The scripts in ``shell/`` ask tlpipe itself, by click's protocol: the command line so far is in the
environment, and so is the shell's name, in ``_TLPIPE_COMPLETE``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from click.shell_completion import (
    CompletionItem,
    ShellComplete,
    add_completion_class,
    split_arg_string,
)

from tlpipe.cli.show import on_terminal, say
from tlpipe.cli.usage import Choice

COMPLETE_VARIABLE = "_TLPIPE_COMPLETE"
SHELLS = ("bash", "zsh", "fish")

_INSTALL = {
    "bash": "tlpipe completion bash > ~/.local/share/bash-completion/completions/tlpipe\n"
    "(where the package bash-completion is missing: end ~/.bashrc with"
    ' eval "$(tlpipe completion bash)")',
    "zsh": "tlpipe completion zsh > ~/.zfunc/_tlpipe\n"
    "and put into ~/.zshrc, before compinit: fpath+=~/.zfunc",
    "fish": "tlpipe completion fish > ~/.config/fish/completions/tlpipe.fish",
}


class _Script(ShellComplete):
    """Of a shell: its script, and how it asks and is answered."""

    def source(self) -> str:
        """The script."""
        path = Path(__file__).parent / "shell" / f"tlpipe.{self.name}"
        return path.read_text(encoding="utf-8")

    def get_completion_args(self) -> tuple[list[str], str]:
        """Words before the one to complete, and what there is of that one."""
        words = os.environ["COMP_WORDS"].split("\n")
        at = int(os.environ["COMP_CWORD"])
        current = words[at] if at < len(words) else ""
        # bash takes "=" for a word of its own
        before = [_unquoted(word) for word in words[1:at] if word != "="]
        return before, _unquoted(current)

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """A line: kind, value and help."""
        kind = "word" if item.type == "plain" else item.type
        return f"{kind}\t{item.value}\t{' '.join((item.help or '').split())}"


class _Bash(_Script):
    name = "bash"

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """A line without help, for which bash has no place."""
        return super().format_completion(item).rpartition("\t")[0]


class _Zsh(_Script):
    name = "zsh"


class _Fish(_Script):
    name = "fish"

    def get_completion_args(self) -> tuple[list[str], str]:
        """The same; fish gives words without quotes, but for the one to complete."""
        return os.environ["COMP_WORDS"].split("\n")[1:], _unquoted(os.environ["COMP_CWORD"])


for _class in (_Bash, _Zsh, _Fish):
    add_completion_class(_class)


def _unquoted(word: str) -> str:
    return "".join(split_arg_string(word)[:1])


@click.command("completion")
@click.argument("shell", type=Choice(SHELLS), required=False)
def completion_command(shell: str | None) -> None:
    """Print the script by which a shell completes tlpipe's commands.

    It completes commands, options, their values, the names of backbones, and files of the kind that
    is wanted. Without SHELL the script is for the one that $SHELL names. On a terminal it is
    followed by where to put it.

    \b
    Example:
      tlpipe completion bash > ~/.local/share/bash-completion/completions/tlpipe
    """
    given = shell or Path(os.environ.get("SHELL", "")).name.removesuffix(".exe")
    if given not in SHELLS:
        raise click.UsageError(
            f"$SHELL is {os.environ.get('SHELL', '')!r}, for which there is no completion: name"
            f" one of {', '.join(SHELLS)}.",
            click.get_current_context(),
        )
    root = click.get_current_context().find_root().command
    script = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}[given]
    click.echo(script(root, {}, "tlpipe", COMPLETE_VARIABLE).source(), nl=False)
    if on_terminal():  # else it is on its way to where it belongs, or a new shell evaluates it
        say(
            "\nTo have it in every new shell, make the folder where it is missing, and:\n"
            f"{_INSTALL[given]}"
        )
