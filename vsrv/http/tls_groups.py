"""Key exchange as Mozilla's intermediate profile has it: X25519, P-256 and P-384, and the hybrid with ML-KEM where OpenSSL knows it.

`ssl` can choose a list of groups from Python 3.15 on; before, it can choose one or leave OpenSSL's list with P-521 and X448. There OpenSSL
reads its own configuration for it, by a public call of its own (CONF_modules_load_file(3)), which holds for contexts that are made later.
"""

from __future__ import annotations

import _ssl
import ctypes
import os
import re
import ssl
import tempfile
from pathlib import Path

_CLASSICAL = "X25519:prime256v1:secp384r1"
_HYBRID = "X25519MLKEM768:"  # from OpenSSL 3.5 on, and not to be lost there
# SECLEVEL as distributions set it: a section of ours replaces the host's, which says no more than that where it names no groups
_CONFIGURATION = """vsrv = modules
[modules]
ssl_conf = contexts
[contexts]
system_default = every
[every]
CipherString = DEFAULT:@SECLEVEL=2
Groups = {groups}
"""
# the host's administrator, or a policy of the distribution in a file of its own, has chosen groups already
_CHOSEN = re.compile(r"(?im)^\s*(?:groups|curves|\.include)\b")


def group_list(version: tuple[int, ...] = ssl.OPENSSL_VERSION_INFO) -> str:
    """OpenSSL's form of the list, the preferred first."""
    return (_HYBRID if version >= (3, 5) else "") + _CLASSICAL


def choose_groups(context: ssl.SSLContext) -> None:
    """For one context, where this Python can."""
    setter = getattr(context, "set_groups", None)
    if setter is not None and not _host_has_chosen():
        setter(group_list())


def preset_groups() -> str:
    """For all contexts of this process that are made from now on. Returns "" or why OpenSSL's own list stays."""
    if hasattr(ssl.SSLContext, "set_groups"):
        return ""
    if _host_has_chosen():
        return "the configuration of OpenSSL on this host chooses the groups"
    try:
        load = ctypes.CDLL(getattr(_ssl, "__file__", None)).CONF_modules_load_file
        with tempfile.NamedTemporaryFile("w", suffix=".cnf") as file:
            file.write(_CONFIGURATION.format(groups=group_list()))
            file.flush()
            load.argtypes, load.restype = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong), ctypes.c_int
            done = load(os.fsencode(file.name), b"vsrv", 0)
    except (OSError, AttributeError) as error:  # no such library, no such function, no place for a file
        return f"OpenSSL cannot be told: {error}"
    return "" if done > 0 else "OpenSSL does not take the list"


def _host_has_chosen() -> bool:
    default = Path(ssl.get_default_verify_paths().openssl_cafile).with_name("openssl.cnf")
    try:
        return bool(
            _CHOSEN.search(Path(os.environ.get("OPENSSL_CONF") or default).read_text(errors="replace"))
        )
    except OSError:
        return False  # no configuration, no choice
