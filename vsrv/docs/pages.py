"""The manual pages: vsrv(1), vsrv-keys(1), vsrv.toml(5). Everything that a table knows comes from it; the prose around it is here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vsrv.commands import Command
from vsrv.docs.entries import (
    Flag,
    Section,
    default_text,
    foreign_reasons,
    groups,
    refused,
    sections,
    serve_flags,
    type_text,
)
from vsrv.docs.mdoc import argument, escaped, example, flag, items, page, paragraph
from vsrv.options import CREDENTIALS, Option

DATE = "November 26, 2026"  # of the last change of the prose; the pages are the same whenever they are made

_EXIT_STATUSES = (
    ("0", "Success, or the end that a signal asked for."),
    (
        "1",
        "The engine could not be kept alive, or a request of `chat`, `complete`, `bench` or `run-batch` failed.",
    ),
    ("2", "There is no such command."),
    ("69", "No server answers at the address that `chat`, `complete`, `bench` or `run-batch` was given."),
    ("78", "The configuration is wrong; the message names the option that mends it."),
    ("130, 141", "Interrupted from the keyboard, or nobody reads the output any more."),
)
_SIGNALS = (
    (
        "TERM, INT",
        "Drain: `/readyz` says 503, running requests may finish within `--shutdown-timeout`. A second one stops at once.",
    ),
    (
        "HUP",
        "Read the configuration again: keys, certificates and log level are taken anew. What is broken is told, and the old one stays in force.",
    ),
    ("USR2", "Write the Python stack of every thread to the log; for every process of the server."),
)
_VARIABLES = (
    (
        "VSRV_CACHE_DIR",
        "Folder of compiled kernels and private copies; it must belong to the user and be writable by nobody else.",
    ),
    ("CREDENTIALS_DIRECTORY", "Where systemd has put credentials; see CREDENTIALS."),
    ("CACHE_DIRECTORY, XDG_CACHE_HOME", "Looked at, in this order, when `VSRV_CACHE_DIR` is not set."),
    ("HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE", "As everywhere with the Hugging Face hub."),
    ("CUDA_VISIBLE_DEVICES", "Which GPUs there are for the server."),
    ("NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS, JOURNAL_STREAM", "Set by systemd for its services."),
)
_CREDENTIAL_TEXT = {
    "api-key-file": "the key file",
    "ssl-certfile": "the TLS certificate chain",
    "ssl-keyfile": "its private key",
    "ssl-ca-certs": "authorities of client certificates",
}


def vsrv_1(commands: Sequence[Command]) -> str:
    """vsrv(1)."""
    found = [
        section for section in sections(commands) if section.words[0] != "keys" or len(section.words) == 1
    ]
    body = [
        ".Sh NAME",
        ".Nm vsrv",
        ".Nd OpenAI\\-compatible server for large language models",
        ".Sh SYNOPSIS",
    ]
    body += _synopsis(found)
    body += [
        ".Sh DESCRIPTION",
        *paragraph(
            "Serves language models over the interfaces of OpenAI and Anthropic. The server listens on the loopback interface, keeps tenants apart and "
            "reads safetensors only, unless it is told otherwise. Every option of `vsrv serve` is a flag, a variable (`--max-num-seqs` is "
            "`VSRV_MAX_NUM_SEQS`) and a key of a configuration file. The command line goes before variables, these before the file, the "
            "file before credentials of systemd, these before the default."
        ),
        ".Pp",
        "The keys of the configuration file are described in",
        ".Xr vsrv.toml 5 .",
        ".Sh COMMANDS",
    ]
    for section in found:
        body += _command(section, f"vsrv {section.name}")
    for name, title, _ in groups():
        body += [f".Sh SERVE OPTIONS: {name.upper()}", *paragraph(title), *_flags(serve_flags(name))]
    return page(
        "VSRV", 1, DATE, [*body, *_service(), *_surroundings(), *_examples(), *_compatibility(), *_see_also()]
    )


def _synopsis(found: Iterable[Section]) -> list[str]:
    """A line for each command."""
    lines: list[str] = []
    for section in found:
        lines += [f".Nm vsrv {argument(section.name)}", *_arguments(section), ".Op Ar options"]
    return lines


def _arguments(section: Section) -> list[str]:
    """What stands without a flag, for a synopsis: `[MODEL]`, `bash|zsh|fish`."""
    lines = []
    for word in section.arguments.split():
        bare = word.strip("[]")
        lines.append(f".Op Ar {argument(bare)}" if word.startswith("[") else f".Ar {argument(bare)}")
    return lines


def _command(section: Section, name: str) -> list[str]:
    lines = [f".Ss {escaped(name)}", *paragraph(section.description)]
    if section.operands:
        lines += items((f"Ar {argument(entry.value)}", _text(entry)) for entry in section.operands)
    lines += _flags(section.flags)
    if section.serve_flags:
        lines += paragraph(
            "Takes the options of `vsrv serve`, which are listed below by group"
            if section.name == "serve"
            else "Takes all options of `vsrv serve` as well"
        )
    return lines


def _flags(flags: Sequence[Flag]) -> list[str]:
    if not flags:
        return []
    rows = []
    for entry in flags:
        tag = " , ".join(flag(name) for name in entry.names)
        if entry.value:
            tag += f" Ar {argument(entry.value)}" + (" ..." if entry.repeats else "")
        rows.append((tag, _text(entry)))
    return items(rows)


def _text(entry: Flag) -> list[str]:
    text = paragraph(entry.text) if entry.text else []
    return text + (paragraph("One of " + ", ".join(entry.choices)) if entry.choices else [])


def _service() -> list[str]:
    credentials = [
        (f"Pa {argument(name)}", paragraph(f"{_CREDENTIAL_TEXT[option]}, as with `--{option}`"))
        for option, name in CREDENTIALS.items()
    ]
    return [
        ".Sh CREDENTIALS",
        *paragraph(
            "As a service, the server finds these files in the folder that systemd names. One that is there and not empty is taken unless "
            "the option is given. Systemd copies them when the service starts: after a change, restart it."
        ),
        *items(credentials),
        ".Sh SIGNALS",
        *items(
            (f"Dv {argument('SIG' + name.replace(', ', ', SIG'))}", paragraph(text))
            for name, text in _SIGNALS
        ),
    ]


def _surroundings() -> list[str]:
    return [
        ".Sh ENVIRONMENT",
        *paragraph("Besides `VSRV_` and the name of an option:"),
        *items((f"Ev {name.replace(',', ' ,')}", paragraph(text)) for name, text in _VARIABLES),
        ".Sh FILES",
        *items(
            [
                (
                    f"Pa {argument('/etc/vsrv/NAME.toml')}",
                    paragraph("Configuration of the service `vsrv@NAME.service`."),
                ),
                (
                    f"Pa {argument('/etc/vsrv/NAME.keys.toml')}",
                    paragraph("Its keys, `NAME.crt` and `NAME.key` its certificate."),
                ),
                (f"Pa {argument('~/.cache/vsrv')}", paragraph("Compiled kernels and private environments.")),
            ]
        ),
        ".Sh EXIT STATUS",
        *items((argument(status), paragraph(text)) for status, text in _EXIT_STATUSES),
    ]


def _compatibility() -> list[str]:
    lines = [
        ".Sh COMPATIBILITY",
        *paragraph(
            "A command line written for `vllm serve` works, or the message says which flag does not and why. These flags are taken at "
            "vLLM's default and refused otherwise:"
        ),
    ]
    rows = [(f"--{option.name}", option.refused) for option in refused()]
    by_reason: dict[str, list[str]] = {}
    for name, reason in rows:
        by_reason.setdefault(reason, []).append(name)
    for reason, names in foreign_reasons():
        by_reason.setdefault(reason, []).extend(names)
    return lines + items((_listed(names), paragraph(reason)) for reason, names in by_reason.items())


def _listed(names: Sequence[str]) -> str:
    return " , ".join(flag(name) for name in names)


def _examples() -> list[str]:
    return [
        ".Sh EXAMPLES",
        *paragraph("Serve a folder to this machine, then ask it something:"),
        *example(
            "vsrv serve ./Qwen3-0.6B\n"
            "curl http://127.0.0.1:8000/v1/chat/completions \\\n"
            "    -H 'Content-Type: application/json' \\\n"
            '    -d \'{"messages": [{"role": "user", "content": "Hello!"}]}\''
        ),
        *paragraph("See beforehand whether it would start, and what would fit:"),
        *example("vsrv check ./Qwen3-0.6B --max-model-len auto"),
        *paragraph("Serve others, with TLS and keys:"),
        *example(
            "vsrv keys new --api-key-file keys.toml --tenant acme --expires 90d\n"
            "vsrv serve ./Qwen3-0.6B --host 0.0.0.0 --api-key-file keys.toml \\\n"
            "    --ssl-certfile cert.pem --ssl-keyfile key.pem"
        ),
    ]


def _see_also() -> list[str]:
    return [".Sh SEE ALSO", ".Xr vsrv\\-keys 1 ,", ".Xr systemd.exec 5 ,", ".Xr vsrv.toml 5"]


def vsrv_keys_1(commands: Sequence[Command]) -> str:
    """vsrv-keys(1)."""
    found = [section for section in sections(commands) if section.words[0] == "keys"]
    body = [".Sh NAME", ".Nm vsrv\\-keys", ".Nd keys, tenants and limits of a vsrv server", ".Sh SYNOPSIS"]
    body += _synopsis(found[1:])
    body += [
        ".Sh DESCRIPTION",
        *paragraph(
            "Changes a key file of `vsrv serve --api-key-file`. The file holds hashes, never a key: a key is printed once, when it is made. "
            "A running server takes a change up by itself; a file that is broken is told in its log, and the old keys stay in force. Two "
            "changes at once do not lose each other."
        ),
    ]
    for section in found[1:]:
        body += _command(section, f"vsrv {section.name}")
    body += [
        ".Sh KEY FILE",
        *paragraph("TOML, or JSON with the same structure when the name ends in .json."),
        *example(
            "[tenants.acme]              # optional: what its keys may use together\n"
            "weight = 2.0                # its share of a busy server\n"
            "tokens_per_minute = 200000\n"
            "\n"
            "[[keys]]\n"
            'id = "acme-1"               # in logs, never secret\n'
            'hash = "sha256:..."         # or scrypt:N:R:P:SALT:HASH\n'
            'tenant = "acme"\n'
            'scopes = ["inference", "metrics"]\n'
            "expires = 2027-01-01T00:00:00Z\n"
            "\n"
            "[keys.limits]\n"
            "requests_per_minute = 600\n"
            "\n"
            "[[keys]]\n"
            'id = "billing"\n'
            'client_cert = "CN=billing"  # also URI:, DNS:, email: or SHA256: of the certificate'
        ),
        *paragraph(
            "An entry with client_cert and no hash lets the client certificate with that name in without a key, where `--ssl-ca-certs` and "
            "`--ssl-cert-reqs` ask for certificates; with both, key and certificate are needed. A key that is sent decides before a certificate "
            "does; only EMPTY counts as none."
        ),
        *paragraph(
            "Above a limit of a key or a tenant the answer is 429 with `Retry-After`. Every key of a tenant sees the prompts that others of it "
            "have cached; keys of different tenants never do."
        ),
        ".Sh EXAMPLES",
        *paragraph("Replace a key while its holder still uses the old one for a week:"),
        *example("vsrv keys rotate acme-1 --overlap 7d --api-key-file keys.toml"),
        ".Sh SEE ALSO",
        ".Xr vsrv 1 ,",
        ".Xr vsrv.toml 5",
    ]
    return page("VSRV-KEYS", 1, DATE, body)


def vsrv_toml_5(commands: Sequence[Command]) -> str:
    """vsrv.toml(5). The commands add nothing to it."""
    body = [
        ".Sh NAME",
        ".Nm vsrv.toml",
        ".Nd configuration file of vsrv",
        ".Sh DESCRIPTION",
        *paragraph(
            "A flat TOML file for `vsrv serve --config`, `vsrv check` and `vsrv config`. A key is the name of a flag without its dashes in "
            "front; `-` and `_` are the same. An unknown key is an error that names the nearest one. A file in the form of vLLM, with the "
            "ending .yaml or .yml, is read where PyYAML is installed. `vsrv config` prints the effective values in this form, and "
            "`vsrv config --diff` those that differ from the defaults."
        ),
        ".Pp",
        *paragraph(
            "Numbers of tokens and bytes may have a unit: k, m, g are thousands, K, M, G are powers of 1024; such a value is a text."
        ),
    ]
    for name, title, options in groups():
        body += [f".Sh {name.upper()}", *paragraph(title), *items(map(_key, options))]
    body += [
        ".Sh EXAMPLES",
        *example(
            'model = "/srv/models/Qwen3-8B"\n'
            'host = "0.0.0.0"\n'
            'max-model-len = "32K"\n'
            "max-num-seqs = 128\n"
            'api-key-file = "/etc/vsrv/keys.toml"\n'
            "override-generation-config = {temperature = 0.3}"
        ),
        ".Sh SEE ALSO",
        ".Xr vsrv 1 ,",
        ".Xr vsrv\\-keys 1",
    ]
    return page("VSRV.TOML", 5, DATE, body)


def _key(option: Option) -> tuple[str, list[str]]:
    text = paragraph(option.help)
    facts = type_text(option)
    default = default_text(option)
    text += [".br", *paragraph(f"{facts}; default {default or ('off' if option.kind == 'bool' else 'none')}")]
    variables = " , ".join(argument(name) for name in (option.variable, *option.env))
    text += [".br", f".Ev {variables}"]
    return f"Cm {argument(option.name)}", text
