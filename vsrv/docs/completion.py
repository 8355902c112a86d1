"""Completions for bash, zsh and fish. They are texts that know every flag: no Python starts at a press of the key."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vsrv.commands import Command
from vsrv.docs.entries import Flag, Section, sections, serve_flags

SHELLS = ("bash", "zsh", "fish")


def completion(shell: str, commands: Sequence[Command]) -> str:
    """The completion script of `shell`, one of SHELLS."""
    makers: dict[str, Callable[[list[Section]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    return makers[shell](sections(commands))


def _all_flags(section: Section) -> list[Flag]:
    return [*section.flags, *(serve_flags() if section.serve_flags else [])]


def _below(section: Section, found: Sequence[Section]) -> list[str]:
    """Names of the commands of a command."""
    size = len(section.words)
    return [s.words[-1] for s in found if s.words[:size] == section.words and len(s.words) == size + 1]


def _words(section: Section, found: Sequence[Section]) -> list[str]:
    """What may stand at a place where no value is due: flags, commands below, fixed operands."""
    operands = [choice for operand in section.operands for choice in operand.choices]
    names = [name for flag in _all_flags(section) for name in flag.names]
    return [*_below(section, found), *operands, *names, "--help"]


_BASH = """# bash completion of vsrv, made by `vsrv completion bash`: put it into ~/.local/share/bash-completion/completions/vsrv
_vsrv() {
    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]} words=
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "%(commands)s" -- "$word")
        return
    fi
    if [[ $word == = ]]; then # --flag= is three words to bash
        word=
    elif [[ $previous == = ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    case $command in
    %(nested)s) ((COMP_CWORD > 2)) && command+=" ${COMP_WORDS[2]}" ;;
    esac
    case $command:$previous in
%(values)s
    esac
    if [[ -n $words ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
        return
    fi
    case $command in
%(flags)s
    esac
    if [[ $word == -* || $command != %(folders)s ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    fi
}
complete -o default -F _vsrv vsrv vsrv.pyz
"""


def _bash(found: list[Section]) -> str:
    values, flags = [], []
    for section in found:
        for flag in _all_flags(section):
            if flag.value:
                patterns = "|".join(f'"{section.name}:{name}"' for name in flag.names)
                # a flag without fixed values: leave the reply empty, and bash completes a file name
                act = f'words="{" ".join(flag.choices)}"' if flag.choices else "return"
                values.append(f"    {patterns}) {act} ;;")
        flags.append(f'    "{section.name}") words="{" ".join(_words(section, found))}" ;;')
    nested = [section.name for section in found if _below(section, found)]
    return _BASH % {
        "commands": " ".join(section.name for section in found if len(section.words) == 1),
        "nested": "|".join(nested),
        "values": "\n".join(values),
        "flags": "\n".join(flags),
        "folders": "@(" + "|".join(s.name for s in found if s.serve_flags) + ")",
    }


def _quoted(text: str) -> str:
    """Text inside of single quotes, for zsh and fish alike."""
    return text.replace("\\", "\\\\").replace("'", "'\\''")


def _zsh(found: list[Section]) -> str:
    lines = [
        "#compdef vsrv vsrv.pyz",
        "# made by `vsrv completion zsh`: put it into a folder of $fpath as _vsrv",
        "",
    ]
    for section in found:
        if section.serve_flags and section.name == "serve":
            lines += [
                "_vsrv_serve_flags=(",
                *(f"    {spec}" for flag in serve_flags() for spec in _zsh_specs(flag)),
                ")",
                "",
            ]
    lines += ["_vsrv() {", "    local -a commands", "    if ((CURRENT == 2)); then", "        commands=("]
    lines += [f"            '{s.name}:{_quoted(s.summary)}'" for s in found if len(s.words) == 1]
    lines += [
        "        )",
        "        _describe command commands",
        "        return",
        "    fi",
        "    case $words[2] in",
    ]
    for section in found:
        if len(section.words) == 1:
            lines += [f"    {section.name})", *_zsh_case(section, found), "        ;;"]
    return "\n".join([*lines, "    esac", "}", "", '_vsrv "$@"', ""])


def _zsh_case(section: Section, found: Sequence[Section]) -> list[str]:
    below = [s for s in found if s.words[:-1] == section.words]
    shift = ["        shift words", "        ((CURRENT--))"]
    if not below:
        return [*shift, f"        _arguments -S {_zsh_arguments(section)}"]
    lines = [
        "        if ((CURRENT == 3)); then",
        f"            _values command {' '.join(s.words[-1] for s in below)}",
        "            return",
        "        fi",
        "        case $words[3] in",
    ]
    for inner in below:
        lines += [
            f"        {inner.words[-1]}) shift 2 words; ((CURRENT -= 2)); _arguments -S {_zsh_arguments(inner)} ;;"
        ]
    return [*lines, "        esac"]


def _zsh_arguments(section: Section) -> str:
    specs = [spec for flag in section.flags for spec in _zsh_specs(flag)]
    if section.serve_flags:
        specs += ['"${_vsrv_serve_flags[@]}"', "'1:model:_files -/'"]
    for operand in section.operands:
        specs.append(
            f"'1:{operand.value}:({' '.join(operand.choices)})'"
            if operand.choices
            else f"'1:{operand.value}:_files'"
        )
    return " ".join(specs)


def _zsh_specs(flag: Flag) -> list[str]:
    text = _quoted(flag.text).replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
    action = ""
    if flag.value:
        action = f":{flag.value}:({' '.join(flag.choices)})" if flag.choices else f":{flag.value}:_files"
    star = "*" if flag.repeats else ""
    return [f"'{star}{name}[{text}]{action}'" for name in flag.names]


def _fish(found: list[Section]) -> str:
    lines = [
        "# fish completion of vsrv, made by `vsrv completion fish`: put it into ~/.config/fish/completions/vsrv.fish"
    ]
    for section in found:
        if len(section.words) == 1:
            seen, rest = "__fish_use_subcommand", f" -d '{_quoted(section.summary)}'"
            lines += [f"complete -c vsrv -f -n {seen} -a {section.name}{rest}"]
    for section in found:
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in section.words)
        fixed = [choice for operand in section.operands for choice in operand.choices]
        lines += [f"complete -c vsrv -f -n '{seen}' -a {name}" for name in [*_below(section, found), *fixed]]
        lines += [_fish_flag(seen, flag) for flag in _all_flags(section)]
    return "\n".join(lines) + "\n"


def _fish_flag(seen: str, flag: Flag) -> str:
    spelled = [
        f"-l {n[2:]}" if n.startswith("--") else f"-o {n[1:]}" if len(n) > 2 else f"-s {n[1:]}"
        for n in flag.names
    ]
    value = f" -x -a '{' '.join(flag.choices)}'" if flag.choices else " -r" if flag.value else ""
    # the negative form of a switch has the same text
    return f"complete -c vsrv -n '{seen}' {' '.join(spelled)}{value} -d '{_quoted(flag.text)}'"
