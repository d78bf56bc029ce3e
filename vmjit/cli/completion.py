"""`vmjit completion`: what a shell completes command lines of vmjit with."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

from vmjit.cli.arguments import Parser, command_parser

SHELLS = ("bash", "zsh", "fish")
_DESCRIPTION = """\
Prints a script with which a shell completes vmjit's commands, their options and the values that options choose from.
For bash and zsh it is read with `source`, for fish it is saved in ~/.config/fish/completions/vmjit.fish."""
_BASH = """\
_vmjit() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
    local command="${{COMP_WORDS[1]}}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands} --help --version"
    else
        case "$command $before" in
{values}
        esac
        if [ -z "$words" ] && [ "${{word#-}}" != "$word" ]; then
            case "$command" in
{options}
            esac
        fi
    fi
    if [ -n "$words" ]; then
        COMPREPLY=($(compgen -W "$words" -- "$word"))
    else
        COMPREPLY=($(compgen -f -- "$word"))
    fi
}}
complete -o filenames -F _vmjit vmjit
"""


def parser() -> Parser:
    made = command_parser("completion", _DESCRIPTION, "vmjit completion bash > vmjit.bash && source vmjit.bash")
    made.add_argument("shell", choices=SHELLS, help="which shell")
    return made


def main(arguments: Sequence[str]) -> int:
    shell = parser().parse_args(arguments).shell
    print(_fish() if shell == "fish" else _bash(zsh=shell == "zsh"), end="")
    return 0


def _actions() -> dict[str, list[argparse.Action]]:
    """The options of each command."""
    from vmjit.cli.main import COMMANDS

    return {
        name: [action for action in import_module(command.module).parser()._actions if action.option_strings]
        for name, command in COMMANDS.items()
    }


def _choices(action: argparse.Action) -> list[str]:
    """What an option's value is one of, as far as that is known."""
    if action.choices is not None:
        return [str(choice) for choice in action.choices]
    shown = action.metavar if isinstance(action.metavar, str) else ""
    words = shown.split("|")
    return words if len(words) > 1 and all(word == word.lower() for word in words) else []


def _bash(*, zsh: bool) -> str:
    options, values = [], []
    for command, actions in _actions().items():
        names = [name for action in actions for name in action.option_strings]
        options.append(f'                {command}) words="{" ".join(names)}" ;;')
        for action in actions:
            if found := _choices(action):
                patterns = "|".join(f'"{command} {name}"' for name in action.option_strings)
                values.append(f'            {patterns}) words="{" ".join(found)}" ;;')
    text = _BASH.format(commands=" ".join(_actions()), options="\n".join(options), values="\n".join(values))
    return f"autoload -U +X bashcompinit && bashcompinit\n{text}" if zsh else text


def _fish() -> str:
    from vmjit.cli.main import COMMANDS

    lines = [
        f"complete -c vmjit -n __fish_use_subcommand -f -a {name} -d '{c.summary}'" for name, c in COMMANDS.items()
    ]
    for command, actions in _actions().items():
        for action in actions:
            names = [f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in action.option_strings]
            found = _choices(action)
            values = f" -x -a '{' '.join(found)}'" if found else "" if action.nargs == 0 else " -r"
            lines.append(f"complete -c vmjit -n '__fish_seen_subcommand_from {command}' {' '.join(names)}{values}")
    return "\n".join(lines) + "\n"
