"""Man pages, reference, example configuration and completions say what the tables say, and their readers take them."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from vsrv import cli, docs
from vsrv.commands import Command
from vsrv.config import resolve
from vsrv.docs.completion import SHELLS, completion
from vsrv.docs.entries import sections
from vsrv.docs.mdoc import argument, paragraph
from vsrv.options import CREDENTIALS, OPTIONS
from vsrv.options_vllm import FOREIGN

ROOT = Path(__file__).resolve().parent.parent.parent
MEANT = [option for option in OPTIONS if not option.refused]


def plain(page: str) -> str:
    """What a reader of an mdoc page sees, near enough to look for names in it."""
    return page.replace("\\-", "-").replace("\\&", "")


def test_the_kept_documents_are_what_the_tables_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["docs", "--check", str(ROOT)]) == 0, capsys.readouterr().err
    kept = {str(path.relative_to(ROOT)) for path in (ROOT / "man").iterdir()}
    assert kept == {name for name in docs.DOCUMENTS if name.startswith("man/")}


def test_a_document_that_differs_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["docs", "--write", str(tmp_path)]) == 0
    page = tmp_path / "man" / "vsrv.1"
    page.write_text(page.read_text().replace("8000", "8001", 1))
    capsys.readouterr()
    assert cli.main(["docs", "--check", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "man/vsrv.1" in said and "vsrv.toml.5" not in said and "vsrv docs --write" in said
    assert cli.main(["docs"]) == 78


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
@pytest.mark.parametrize("name", [n for n in docs.NAMES if n[-1].isdigit()])
def test_manual_pages_are_clean(name: str, tmp_path: Path) -> None:
    page = tmp_path / name
    page.write_text(docs.text(name, cli.COMMANDS))
    said = subprocess.run(["mandoc", "-T", "lint", str(page)], capture_output=True, text=True, check=False)
    # whether other pages are installed on this machine says nothing about this one
    lines = [line for line in said.stdout.splitlines() if "referenced manual not found" not in line]
    assert not lines
    shown = subprocess.run(["mandoc", "-T", "utf8", str(page)], capture_output=True, text=True, check=True)
    text = re.sub(".\b", "", shown.stdout)  # bold and underlined letters are struck twice
    assert "NAME" in text and not re.search(r"\\[&(e-]", text)


def test_every_setting_is_in_every_document() -> None:
    page, file, table = (docs.text(name, cli.COMMANDS) for name in ("vsrv.1", "vsrv.toml.5", "markdown"))
    for option in MEANT:
        assert f"Fl -{option.name}" in plain(page), option.name
        assert f"Cm {option.name}" in plain(file) and option.variable in file, option.name
        assert f"`--{option.name}`" in table and f"`{option.variable}`" in table, option.name
        for twin in option.env:
            assert twin in file and twin in table
    for row in [*FOREIGN.values(), *(o for o in OPTIONS if o.refused)]:
        assert f"Fl -{row.name}" in plain(page) and f"`--{row.name}`" in table, row.name
    for command in cli.COMMANDS:
        assert f".Ss vsrv {command.name}" in plain(page) and f"`vsrv {command.name}" in table
    for name in CREDENTIALS.values():
        assert name in plain(page)


def test_every_flag_of_every_parser_is_in_the_pages() -> None:
    shown = plain(docs.text("vsrv.1", cli.COMMANDS) + docs.text("vsrv-keys.1", cli.COMMANDS))

    def flags(command: Command) -> set[str]:
        help_text = command.parser().format_help()
        return set(re.findall(r"(?<!\w)--[a-z][\w-]+", help_text)) - {"--help"}

    for command in cli.COMMANDS:
        for name in flags(command):
            assert f"Fl -{name[2:]}" in shown or name in shown, (command.name, name)


def test_the_example_configuration_sets_every_default(tmp_path: Path) -> None:
    text = docs.text("example.toml", cli.COMMANDS)
    assert tomllib.loads(text) == {}
    lines = [line[1:] for line in text.splitlines() if re.match(r"#[a-z0-9-]+ = ", line)]
    assert {line.partition(" ")[0] for line in lines} == {o.name for o in MEANT} - {"config"}
    file = tmp_path / "v.toml"
    file.write_text("\n".join(line for line in lines if "# not set" not in line))
    config = resolve({"config": str(file)}, {})
    for option in MEANT:
        if option.name != "config":
            assert config.get(option.name) == option.default, option.name


def test_mdoc_text_is_never_a_macro() -> None:
    assert paragraph("Say `it`. Then again") == ["Say it.", "Then again."]
    assert paragraph(".hidden \\x 'q'") == ["\\&.hidden \\ex \\(aqq\\(aq."]
    assert argument('Ar "x"') == '"\\&Ar \\(dqx\\(dq"'
    assert argument("--a") == "\\&\\-\\-a"


def test_the_readme_names_no_flag_that_is_not_there() -> None:
    """In running text, and in the lines that run vsrv; the columns for other servers name theirs."""
    own = (
        {f"--{o.name}" for o in OPTIONS}
        | {f"--no-{o.name}" for o in OPTIONS}
        | {f"--{name}" for name in FOREIGN}
    )
    for section in sections(cli.COMMANDS):
        own |= {name for flag in section.flags for name in flag.names}
    own |= {"--help", "--flag", "--cubins", "--check"}
    text = (ROOT / "README.md").read_text()
    start, end = text.index("## Coming from llama.cpp"), text.index("## Running it for others")
    rows = [line.split("|")[-2] for line in text[start:end].splitlines() if line.startswith("|")]
    text = text[:start] + "\n".join(rows) + text[end:]
    named = set(re.findall(r"`(--[a-z][a-z0-9-]+)", text))
    for line in re.findall(
        r"^.*\bvsrv(?:\.pyz)? (?:serve|check|keys|cert|bench|config)\b(.*)$", text, re.MULTILINE
    ):
        named |= set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", line.partition("  #")[0]))
    assert len(named) > 40 and named <= own, named - own


# completions: asked of the shells themselves

ASKED = [
    (["ser"], ["serve"]),
    (["serve", "--log-for"], ["--log-format"]),
    (["serve", "--log-format", ""], ["text", "json"]),
    (["serve", "--log-format", "j"], ["json"]),
    (["config", "--no-enable-pref"], ["--no-enable-prefix-caching"]),
    (["keys", "r"], ["revoke", "rotate"]),
    (["keys", "new", "--ten"], ["--tenant"]),
    (["completion", ""], [*SHELLS]),
    (["bench", "--api", ""], ["completions", "chat"]),
]


def asked(shell: str, tmp_path: Path, code: str) -> list[str]:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / f"completion.{shell}"
    script.write_text(completion(shell, cli.COMMANDS))
    done = subprocess.run([shell, "-c", f"source '{script}'; {code}"], capture_output=True, text=True, timeout=20, check=False)  # fmt: skip
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_bash_completes(tmp_path: Path) -> None:
    code = 'ask() { COMP_WORDS=(vsrv "$@"); COMP_CWORD=$#; COMPREPLY=(); _vsrv; echo "${COMPREPLY[*]}"; }\n'
    for words, _ in ASKED:
        code += "ask " + " ".join(f"'{word}'" for word in words) + "\n"
    code += "ask serve --log-format = j; ask serve --ssl-certfile ''; complete -p vsrv.pyz\n"
    *answers, assigned, file, rule = asked("bash", tmp_path, code)
    for (words, expected), answer in zip(ASKED, answers, strict=True):
        assert set(expected) <= set(answer.split()), words
        assert words[-1] == "" or all(word.startswith(words[-1]) for word in answer.split())
    assert assigned == "json"
    assert file == "", "an empty reply lets bash complete a file name"
    assert "-o default" in rule and "_vsrv" in rule


def test_fish_completes(tmp_path: Path) -> None:
    for words, expected in ASKED:
        lines = asked("fish", tmp_path, f"complete -C 'vsrv {' '.join(words)}'")
        assert set(expected) <= {line.partition("\t")[0] for line in lines}, words


def test_zsh_takes_the_script(tmp_path: Path) -> None:
    script = tmp_path / "_vsrv"
    script.write_text(completion("zsh", cli.COMMANDS))
    lines = asked("zsh", tmp_path, f"autoload -U compinit; compinit -D; zsh -n '{script}' && echo taken")
    assert lines == ["taken"]
    assert script.read_text().startswith("#compdef vsrv")
    for option in MEANT:
        assert f"--{option.name}[" in script.read_text()
