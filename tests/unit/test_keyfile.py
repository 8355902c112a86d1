"""Key files: what is read, what is refused, what `vsrv keys` writes; hypothesis looks for anything but ConfigError."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from hypothesis import given, settings
from hypothesis import strategies as st

from vsrv import certificates, cli, keys
from vsrv.errors import EXIT_CONFIG, ConfigError
from vsrv.keyfile import (
    KeyFile,
    KeyRecord,
    RateLimits,
    TenantRecord,
    hashed,
    id_in,
    matches,
    new_secret,
    parse,
    read_key_file,
    write_key_file,
)

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
SHA = "sha256:" + "ab" * 32
SCRYPT = "scrypt:16384:8:1:" + "01" * 16 + ":" + "02" * 32
WHOLE = f"""
[tenants.acme]
weight = 2
tokens_per_minute = 100000

[[keys]]
id = "acme-1"
hash = "{SHA}"
tenant = "acme"
scopes = ["inference", "metrics"]
expires = 2027-01-01T02:00:00+02:00
created = 2026-01-01
note = "naïve 🙂"
[keys.limits]
requests_per_minute = 60
max_priority = 0

[[keys]]
id = "lone"
hash = "{SCRYPT}"
revoked = true
"""


def test_a_whole_file() -> None:
    contents = parse(WHOLE.encode())
    first, second = contents.keys
    assert (first.id, first.tenant, first.scopes) == ("acme-1", "acme", ("inference", "metrics"))
    assert first.expires == datetime(2027, 1, 1, tzinfo=UTC) and first.created == datetime(
        2026, 1, 1, tzinfo=UTC
    )
    assert first.limits == RateLimits(requests_per_minute=60, max_priority=0)
    assert contents.tenants == {"acme": TenantRecord(RateLimits(tokens_per_minute=100000), 2.0)}
    assert (second.tenant, second.scopes, second.state(NOW)) == ("lone", ("inference",), "revoked")
    assert first.state(NOW) == "active" and first.state(datetime(2027, 1, 1, tzinfo=UTC)) == "expired"
    assert "ab" * 32 not in repr(contents)


def entry(**changes: Any) -> bytes:
    table = {"id": "a", "hash": SHA, **changes}
    return json.dumps({"keys": [table]}).encode()


REFUSED: list[tuple[bytes, str]] = [
    (b'{"keys": [{"id": "a"}]}', "key a: hash must be"),
    (b'{"keys": [{"id": "a", "hash": "", "client_cert": "CN=x"}]}', "key a: hash must be"),
    (b'{"keys": [{"id": "a", "client_cert": ""}]}', "key a: client_cert must be"),
    (b'{"keys": [{"id": "a", "client_cert": "CN="}]}', "key a: client_cert must be"),
    (b'{"keys": [{"id": "a", "client_cert": "CN= x"}]}', "key a: client_cert must be"),
    (b'{"keys": [{"id": "a", "client_cert": "O=x"}]}', "key a: client_cert must be"),
    (b'{"keys": [{"id": "a", "client_cert": "SHA256:abcd"}]}', "key a: client_cert must be"),
    (b'{"keys": [{"id": "a", "client_cert": "CN=a\\u0000b"}]}', "key a: client_cert must be"),
    (b'{"keys": [{"id": "a", "client_cert": 1}]}', "key a: client_cert must be"),
    (
        b'{"keys": [{"id": "a", "client_cert": "CN=x"}, {"id": "b", "client_cert": "CN=x"}]}',
        "another one has the client_cert CN=x",
    ),
    (b"\xff", "not valid JSON"),
    (b"[]", "expected a table"),
    (b"[" * 100_000, "not valid JSON"),
    (b'{"key": []}', "unknown field 'key'"),
    (b'{"keys": {}}', "must be a list"),
    (b'{"keys": [1]}', "key 1: expected a table"),
    (b'{"tenants": []}', "must be a table"),
    (b'{"tenants": {"a b": {}}}', "letters, digits"),
    (b'{"tenants": {"a": 1}}', "tenant a: expected a table"),
    (b'{"tenants": {"a": {"weight": 0}}}', "weight must be"),
    (b'{"tenants": {"a": {"weight": true}}}', "weight must be"),
    (b'{"tenants": {"a": {"weigth": 1}}}', "unknown field 'weigth'"),
    (entry(id=""), "key 1: id"),
    (entry(id="a.b"), "key 1: id"),
    (entry(id="a\n"), "key 1: id"),
    (entry(id="x" * 65), "key 1: id"),
    (entry(tenant=None), "tenant must be"),
    (entry(hash=None), "hash must be"),
    (entry(hash="sha256:" + "AB" * 32), "hash must be"),
    (entry(hash="sha256:" + "ab" * 31), "hash must be"),
    (entry(hash="md5:" + "ab" * 16), "hash must be"),
    (entry(hash="a-key-that-was-put-here"), "hash must be"),
    (entry(hash="scrypt:16383:8:1:" + "01" * 16 + ":" + "02" * 32), "hash must be"),
    (entry(hash="scrypt:1048576:8:1:" + "01" * 16 + ":" + "02" * 32), "hash must be"),
    (entry(hash="scrypt:16384:8:9:" + "01" * 16 + ":" + "02" * 32), "hash must be"),
    (entry(scopes=[]), "scopes must be"),
    (entry(scopes=["root"]), "scopes must be"),
    (entry(scopes=[["inference"]]), "scopes must be"),
    (entry(expires="soon"), "expires must be a date"),
    (entry(expires=1), "expires must be a date"),
    (entry(revoked=1), "revoked must be"),
    (entry(note="two\nlines"), "note must be"),
    (entry(limits=[]), "expected a table"),
    (entry(limits={"requests_per_minute": 0}), "requests_per_minute must be an integer from 1"),
    (entry(limits={"requests_per_minute": 1.5}), "requests_per_minute must be"),
    (entry(limits={"max_priority": -1}), "max_priority must be an integer from 0"),
    (entry(limits={"rpm": 1}), "unknown field 'rpm'"),
    (entry(secret="x"), "unknown field 'secret'"),
    (json.dumps({"keys": [{"id": "a", "hash": SHA}] * 2}).encode(), "two keys have the id a"),
]  # fmt: skip


@pytest.mark.parametrize("data, message", REFUSED, ids=lambda v: str(v)[:50])
def test_refusals_name_the_place_and_show_no_hash(data: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        parse(data, is_json=True)
    assert "ab" * 20 not in str(error.value).lower() and "a-key-that" not in str(error.value)


def test_a_syntax_error_does_not_quote_the_file() -> None:
    with pytest.raises(ConfigError, match=r"is not valid TOML \(line 2\)") as error:
        parse(b'[[keys]]\nid = "vsrv-secret-key\n')
    assert "secret" not in str(error.value)


def test_files_that_others_may_change_or_nobody_can_read(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    with pytest.raises(ConfigError, match="No such file"):
        read_key_file(path)
    path.write_text(WHOLE)
    path.chmod(0o646)
    with pytest.raises(ConfigError, match="chmod o-w"):
        read_key_file(path)
    path.chmod(0o644)
    assert len(read_key_file(path).keys) == 2
    path.write_bytes(b"#" * ((4 << 20) + 1))
    with pytest.raises(ConfigError, match="larger than"):
        read_key_file(path)


@pytest.mark.parametrize("slow", [False, True])
def test_hashes(slow: bool) -> None:
    key = new_secret("web-1")
    assert key.startswith("vsrv-web-1.") and id_in(key) == "web-1" and len(key) > 50
    stored = hashed(key, slow)
    assert matches(key, stored) and not matches(key + "x", stored) and not matches("", stored)
    assert key not in stored and parse(entry(hash=stored), is_json=True).keys[0].hash == stored
    assert id_in("no-dot") == "" and id_in("chosen.pass.word") == "chosen"


texts = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp", "Cn", "Co", "Cf", "Zs")), max_size=20
)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)
limits = st.builds(
    RateLimits,
    st.none() | st.integers(1, 10**12),
    st.none() | st.integers(1, 10**12),
    st.none() | st.integers(1, 100),
    st.none() | st.integers(0, 100),
)
moments = st.none() | st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))
records = st.builds(
    KeyRecord,
    names,
    st.sampled_from([SHA, SCRYPT]),
    names,
    st.lists(st.sampled_from(["inference", "metrics", "admin"]), min_size=1, unique=True).map(tuple),
    moments,
    limits,
    st.booleans(),
    moments,
    texts,
    st.sampled_from(["", "CN=Müller & Söhne", "URI:spiffe://a/b", "SHA256:" + "0f" * 32]),
)
files = st.builds(
    lambda keys, tenants: KeyFile(tuple(keys), tenants),
    st.lists(records, max_size=4, unique_by=lambda k: k.id),
    st.dictionaries(names, st.builds(TenantRecord, limits, st.floats(0.01, 1000)), max_size=3),
)


@given(files, st.sampled_from(["k.toml", "k.json"]))
@settings(max_examples=60, deadline=None)
def test_what_is_written_reads_back(
    tmp_path_factory: pytest.TempPathFactory, contents: KeyFile, name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / name
    write_key_file(path, contents)
    assert read_key_file(path) == contents
    assert not list(path.parent.glob(".k.*.new"))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([SHA, SCRYPT]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["keys", "tenants", "id", "hash", "tenant", "scopes", "expires", "limits", "weight", "x"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=30,
)


@given(json_values)
@settings(max_examples=300, deadline=None)
def test_no_structure_raises_anything_else(value: Any) -> None:
    _parsed(json.dumps(value).encode(), True)
    _parsed(json.dumps({"keys": [value], "tenants": value}).encode(), True)
    _parsed(
        json.dumps({"keys": [{"id": "a", "hash": SHA, "limits": value, "expires": value}]}).encode(), True
    )


@given(st.binary(max_size=200), st.integers(0, len(WHOLE)), st.integers(0, 40))
@settings(max_examples=300, deadline=None)
def test_no_bytes_raise_anything_else(noise: bytes, at: int, cut: int) -> None:
    whole = WHOLE.encode()
    _parsed(noise, False)
    _parsed(whole[:at] + noise + whole[at + cut :], False)


def _parsed(data: bytes, is_json: bool) -> None:
    try:
        contents = parse(data, is_json)
    except ConfigError as error:
        assert str(error)
    else:
        assert isinstance(contents, KeyFile)


# vsrv keys


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "keys.toml"
    monkeypatch.setenv("VSRV_API_KEY_FILE", str(made))
    return made


def test_new_list_rotate_revoke(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "keys",
        "new",
        "--id",
        "web",
        "--tenant",
        "acme",
        "--scopes",
        "inference,metrics",
        "--expires",
        "90d",
    ]
    assert cli.main([*words, "--requests-per-minute", "60", "--note", "for the shop"]) == 0
    out, err = capsys.readouterr()
    key = out.strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and key not in path.read_text() and key not in err
    made = read_key_file(path).find("web")
    assert matches(key, made.hash) and made.limits.requests_per_minute == 60 and made.tenant == "acme"
    assert made.expires is not None and timedelta(days=89) < made.expires - datetime.now(UTC) <= timedelta(
        days=90
    )
    assert cli.main(["keys", "new", "--id", "web"]) == EXIT_CONFIG
    assert "already" in capsys.readouterr().err
    assert cli.main(["keys", "rotate", "web", "--overlap", "1h"]) == 0
    newer = capsys.readouterr().out.strip()
    old, new = read_key_file(path).keys
    assert (
        new.id == "web-r2"
        and matches(newer, new.hash)
        and (new.tenant, new.limits) == (old.tenant, old.limits)
    )
    assert (
        old.expires is not None
        and old.expires - datetime.now(UTC) <= timedelta(hours=1)
        and new.expires is not None
        and new.created is not None
    )
    assert new.expires - new.created == timedelta(days=90), "as long as the old one was made for"
    assert cli.main(["keys", "revoke", "web"]) == 0
    capsys.readouterr()
    assert cli.main(["keys", "list"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in table[1:]] == [
        ["web", "acme", "revoked"],
        ["web-r2", "acme", "active"],
    ]
    assert "requests_per_minute=60" in table[1] and "sha256" not in "".join(table)
    assert cli.main(["keys", "rotate", "web"]) == EXIT_CONFIG  # a revoked key has no successor
    assert cli.main(["keys", "revoke", "nobody"]) == EXIT_CONFIG


@pytest.mark.parametrize(
    "words",
    [["new", "--scopes", "root"], ["new", "--id", "a b"], ["new", "--expires", "soon"], ["new", "--max-concurrent", "0"],
     ["list"], ["revoke", "x"], ["rotate", "x", "--overlap", "1"], ["steal"], []],
    ids=" ".join,
)  # fmt: skip
def test_what_cannot_be_done_changes_nothing(
    path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["keys", *words]) == EXIT_CONFIG
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("vsrv: ") and not path.exists()


def test_a_file_that_is_not_there_is_made_by_a_command(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["keys", "list"]) == EXIT_CONFIG
    assert f"vsrv keys new --api-key-file {path}" in capsys.readouterr().err


def test_no_file_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("VSRV_API_KEY_FILE", raising=False)
    assert cli.main(["keys", "list"]) == EXIT_CONFIG and "--api-key-file" in capsys.readouterr().err


def test_rotation_again_and_of_an_expired_key() -> None:
    contents, _ = keys.with_new(
        KeyFile(), keys.NewKey("a", "", ("inference",), None, RateLimits(), False, ""), NOW
    )
    contents, _ = keys.rotated(contents, "a", timedelta(hours=1), NOW)
    contents, _ = keys.rotated(contents, "a-r2", timedelta(hours=1), NOW)
    assert [key.id for key in contents.keys] == ["a", "a-r2", "a-r3"]
    assert contents.keys[-1].expires is None
    with pytest.raises(ConfigError, match="expired"):
        keys.rotated(contents, "a", timedelta(hours=1), NOW + timedelta(hours=2))


def test_a_link_is_followed_and_not_replaced(tmp_path: Path) -> None:
    real = tmp_path / "real.toml"
    real.write_text("")
    link = tmp_path / "keys.toml"
    link.symlink_to(real)
    write_key_file(link, parse(WHOLE.encode()))
    assert link.is_symlink() and len(read_key_file(real).keys) == 2


def test_entries_for_client_certificates(
    path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["keys", "new", "--id", "bill", "--client-cert", "CN=billing", "--tenant", "acme"]) == 0
    assert capsys.readouterr().out == "", "there is no key to show"
    assert cli.main(["keys", "new", "--id", "both", "--client-cert", "CN=billing", "--bound"]) == 0
    key = capsys.readouterr().out.strip()
    made = certificates.make(certificates.CertificateWish(tmp_path / "c", client="x"))
    assert cli.main(["keys", "new", "--id", "print", "--client-cert", str(made.certificate)]) == 0
    first, second, third = read_key_file(path).keys
    assert (first.hash, first.client_cert, first.tenant) == ("", "CN=billing", "acme")
    assert matches(key, second.hash) and second.client_cert == "CN=billing"
    print_ = x509.load_pem_x509_certificate(made.certificate.read_bytes()).fingerprint(hashes.SHA256()).hex()
    assert (third.hash, third.client_cert) == ("", f"SHA256:{print_}")
    before = path.read_bytes()
    for words in (
        ["new", "--client-cert", "CN=billing"],
        ["new", "--client-cert", "billing"],
        ["new", "--bound"],
        ["new", "--client-cert", str(path)],
        ["rotate", "bill"],
    ):
        assert cli.main(["keys", *words]) == EXIT_CONFIG
    assert path.read_bytes() == before
    assert cli.main(["keys", "rotate", "both"]) == 0
    assert read_key_file(path).keys[-1].client_cert == "CN=billing"
    capsys.readouterr()
    assert cli.main(["keys", "list"]) == 0
    assert "CN=billing" in capsys.readouterr().out
