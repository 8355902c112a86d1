"""Keys: who is let in, scopes, expiry, scrypt, reload with the old keys kept, cache salts; Authorization headers of any form."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsrv.api import auth
from vsrv.api.auth import ANYBODY, Caller, KeyPolicy, Keys, presented
from vsrv.errors import ConfigError, UserError
from vsrv.http.route import AuthClass
from vsrv.http.values import Headers, PeerCertificate
from vsrv.keyfile import RateLimits, hashed

INFERENCE = AuthClass.INFERENCE
NOON = 1_795_000_000.0


def run(awaitable: Awaitable[Any]) -> Any:
    async def wait() -> Any:
        return await awaitable

    return asyncio.run(wait())


def bearer(key: str) -> Headers:
    return Headers([("authorization", f"Bearer {key}")])


def entry(key_id: str, key: str, **extra: str) -> str:
    lines = "".join(f"{name} = {value}\n" for name, value in extra.items())
    return f'[[keys]]\nid = "{key_id}"\nhash = "{hashed(key)}"\n{lines}\n'


def refusal(keys: Keys, key: str, auth_class: AuthClass = INFERENCE) -> tuple[int, str]:
    with pytest.raises(UserError) as error:
        run(keys.identify(bearer(key), auth_class))
    return error.value.status, error.value.code


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    path.write_text(
        entry("a", "key-a", tenant='"acme"')
        + entry("b", "key-b", tenant='"acme"', scopes='["metrics"]')
        + entry("old", "key-old", expires="2026-01-01T00:00:00Z")
        + entry("gone", "key-gone", revoked="true")
        + "[tenants.acme]\nweight = 3\ntokens_per_minute = 10\n"
    )
    return path


def test_scopes_expiry_and_revocation(file: Path) -> None:
    keys = Keys((), b"s", file, KeyPolicy(metrics_need_key=True), clock=lambda: NOON)
    caller = run(keys.identify(bearer("key-a"), INFERENCE))
    assert (caller.key_id, caller.tenant, caller.weight) == ("a", "acme", 3.0)
    assert caller.tenant_limits == RateLimits(tokens_per_minute=10)
    assert refusal(keys, "key-b") == (403, "insufficient_scope")
    assert run(keys.identify(bearer("key-b"), AuthClass.METRICS)).key_id == "b"
    assert refusal(keys, "key-a", AuthClass.METRICS) == (403, "insufficient_scope")
    assert refusal(keys, "key-a", AuthClass.ADMIN) == (403, "insufficient_scope")
    assert refusal(keys, "key-old") == (401, "expired_api_key")
    assert (
        refusal(keys, "key-gone") == refusal(keys, "nothing") == refusal(keys, "") == (401, "invalid_api_key")
    )
    for open_class in (AuthClass.PUBLIC, AuthClass.PROBE):
        assert run(keys.identify(Headers([]), open_class)) is ANYBODY


def test_options_and_file_together_and_neither(file: Path) -> None:
    keys = Keys(("key-option",), b"s", file, clock=lambda: NOON)
    assert run(keys.identify(bearer("key-option"), INFERENCE)).key_id.startswith("key-")
    assert run(keys.identify(Headers([("x-api-key", "key-a")]), INFERENCE)).key_id == "a"
    assert run(keys.identify(Headers([]), AuthClass.METRICS)) is ANYBODY  # --metrics-auth none
    assert run(Keys((), b"s").identify(Headers([]), INFERENCE)) is ANYBODY
    file.write_text("")
    assert refusal(Keys((), b"s", file), "key-a") == (401, "invalid_api_key")  # an empty file opens nothing


def test_every_digest_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule R2: the work does not depend on which key is right, or whether one is."""
    calls: list[int] = []
    real = auth.hmac.compare_digest
    monkeypatch.setattr(auth.hmac, "compare_digest", lambda a, b: calls.append(1) or real(a, b))
    keys = Keys([f"key-{i}" for i in range(7)], b"s")
    for key in ("key-0", "key-6", "wrong"):
        calls.clear()
        try:
            run(keys.identify(bearer(key), INFERENCE))
        except UserError:
            assert key == "wrong"
        assert len(calls) == 7


def test_scrypt_is_derived_once_and_only_for_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.json"
    path.write_text(
        json.dumps({"keys": [{"id": "person", "hash": hashed("person.correct horse", slow=True)}]})
    )
    keys = Keys((), b"s", path)
    derived: list[str] = []
    real = auth.matches

    def counted(key: str, stored: str) -> bool:
        derived.append(key)
        return real(key, stored)

    monkeypatch.setattr(auth, "matches", counted)
    for _ in range(3):
        assert run(keys.identify(bearer("person.correct horse"), INFERENCE)).key_id == "person"
    assert refusal(keys, "person.wrong") == refusal(keys, "other.correct horse") == (401, "invalid_api_key")
    assert derived == ["person.correct horse", "person.wrong"]


def test_wrong_scrypt_keys_cannot_take_all_cpus(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [{"id": "person", "hash": hashed("person.x", slow=True)}]}))
    keys = Keys((), b"s", path)

    async def storm() -> list[int]:
        tries = [keys.identify(bearer(f"person.{i}"), INFERENCE) for i in range(12)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        return sorted(r.status for r in results if isinstance(r, UserError))

    assert asyncio.run(storm()) == [401] * 4 + [503] * 8


def test_reload_keeps_the_old_keys_on_any_error(file: Path) -> None:
    lines: list[tuple[str, str]] = []
    keys = Keys((), b"s", file, log=lambda level, text: lines.append((level, text)), clock=lambda: NOON)
    for broken in ("[[keys]]\n", "keys = 1", "\x00", '[[keys]]\nid = "a"\nhash = "key-a"\n'):
        file.write_text(broken)
        assert keys.reload() is False
        assert run(keys.identify(bearer("key-a"), INFERENCE)).key_id == "a"
        assert lines[-1][0] == "error" and "the old keys stay" in lines[-1][1] and "key-a" not in lines[-1][1]
    file.unlink()
    assert keys.reload() is False and "No such file" in lines[-1][1]
    file.write_text(entry("c", "key-c"))
    assert keys.reload() is True and lines[-1][0] == "info"
    assert run(keys.identify(bearer("key-c"), INFERENCE)).key_id == "c"
    assert refusal(keys, "key-a") == (401, "invalid_api_key")
    with pytest.raises(ConfigError):
        Keys((), b"s", file.with_name("none.toml"))
    assert Keys(("k-1",), b"s").reload() is False


def test_watching_sees_a_rewrite_and_a_swapped_link(tmp_path: Path) -> None:
    """Kubernetes swaps a link on the way to the file; nothing about the name itself changes."""
    for number, key in enumerate(("key-1", "key-2", "key-3")):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "keys.toml").write_text(entry("k", key))
    link = tmp_path / "current"
    link.symlink_to(tmp_path / "0")
    lines: list[str] = []

    async def scenario() -> None:
        keys = Keys((), b"s", link / "keys.toml", log=lambda level, text: lines.append(level))
        watch = asyncio.get_running_loop().create_task(keys.watch(0.001))

        async def until(key: str) -> None:
            while True:
                try:
                    await keys.identify(bearer(key), INFERENCE)
                    return
                except UserError:
                    await asyncio.sleep(0.001)

        await until("key-1")
        (tmp_path / "next").symlink_to(tmp_path / "1")
        os.replace(tmp_path / "next", link)
        await asyncio.wait_for(until("key-2"), 5)
        (tmp_path / "1" / "keys.toml").write_text("broken")
        while "error" not in lines:
            await asyncio.sleep(0.001)
        await until("key-2")
        (tmp_path / "1" / "keys.toml").write_text(entry("k", "key-3"))
        await asyncio.wait_for(until("key-3"), 5)
        watch.cancel()

    asyncio.run(scenario())
    assert lines == ["info", "error", "info"]


def test_cache_salts_by_scope() -> None:
    a, b, c = Caller("k1", "acme"), Caller("k2", "acme"), Caller("k3", "other")
    for scope, same in (("tenant", {(a, b)}), ("key", set()), ("shared", {(a, b), (b, c), (a, c)})):
        keys = Keys((), b"secret", policy=KeyPolicy(cache_scope=scope))
        for pair in ((a, b), (b, c), (a, c)):
            equal = keys.cache_salt(pair[0], "") == keys.cache_salt(pair[1], "")
            assert equal == (pair in same), (scope, pair)
        assert keys.cache_salt(a, "") != keys.cache_salt(a, "mine")
        assert keys.cache_salt(a, "x") != Keys((), b"other secret").cache_salt(a, "x")
    keys = Keys((), b"secret")
    assert keys.cache_salt(Caller("k", "a"), "bc") != keys.cache_salt(Caller("k", "ab"), "c")


def test_priority_is_bounded_by_the_ceiling() -> None:
    free = Caller("k", "t")
    assert [free.priority(p) for p in (-5, 0, 5)] == [-5, 0, 5]
    none = Caller("k", "t", has_ceiling=True)
    assert [none.priority(p) for p in (-5, 0, 5)] == [0, 0, 5]
    both = Caller("k", "t", RateLimits(max_priority=10), RateLimits(max_priority=3), has_ceiling=True)
    assert [both.priority(p) for p in (-20, -3, -2, 9)] == [-3, -3, -2, 9]


def test_who_has_a_ceiling(file: Path) -> None:
    """One key of an option is everybody; as soon as there are others, none of them may push in front."""
    lone = run(Keys(("key-1",), b"s").identify(bearer("key-1"), INFERENCE))
    assert lone.priority(-7) == -7
    for keys in (Keys(("key-1", "key-2"), b"s"), Keys(("key-1",), b"s", file, clock=lambda: NOON)):
        assert run(keys.identify(bearer("key-1"), INFERENCE)).priority(-7) == 0
    assert ANYBODY.priority(-7) == -7


@pytest.mark.parametrize(
    "headers, key",
    [
        ([("authorization", "Bearer k")], "k"), ([("authorization", "bearer   k  ")], "k"), ([("authorization", "Bearer")], ""),
        ([("authorization", "Basic k")], ""), ([("authorization", "k")], ""), ([("x-api-key", " k ")], "k"), ([], ""),
        ([("authorization", "Bearer k"), ("x-api-key", "other")], "k"), ([("authorization", "Basic x"), ("x-api-key", "k")], "k"),
        ([("authorization", "Bearer a"), ("authorization", "Bearer b")], "a, Bearer b"), ([("x-api-key", "k" * 513)], ""),
    ],
    ids=str,
)  # fmt: skip
def test_presented(headers: list[tuple[str, str]], key: str) -> None:
    assert presented(Headers(headers)) == key


KEYS = Keys(("right-key",), b"s")
FIXED_TEXT = "a valid API key is needed: send Authorization: Bearer KEY or x-api-key: KEY"


@given(
    st.text(max_size=80),
    st.sampled_from(["authorization", "x-api-key"]),
    st.sampled_from(["", "Bearer ", "bearer\t"]),
)
@settings(max_examples=200, deadline=None)
def test_any_header_is_the_key_or_401(text: str, name: str, scheme: str) -> None:
    headers = Headers([(name, scheme + text)])
    try:
        caller = run(KEYS.identify(headers, INFERENCE))
    except UserError as error:
        assert (error.status, error.code) == (401, "invalid_api_key")
        assert error.message == FIXED_TEXT  # nothing of what was sent comes back
    else:
        assert caller.key_id and presented(headers) == "right-key"


PRINT = "SHA256:" + "ab" * 32
FRIEND = PeerCertificate((PRINT, "URI:spiffe://acme/billing", "DNS:billing.acme", "CN=billing"))
STRANGER = PeerCertificate(("SHA256:" + "cd" * 32, "CN=billing.acme"))


def certificate_keys(tmp_path: Path, *entries: dict[str, Any]) -> Keys:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [*entries, {"id": "k", "hash": hashed("key-k")}]}))
    return Keys((), b"s", path, clock=lambda: NOON)


def known_as(keys: Keys, key: str, certificate: PeerCertificate | None) -> str:
    """The caller's key id, or the code of the refusal."""
    headers = bearer(key) if key else Headers([])
    try:
        return str(run(keys.identify(headers, INFERENCE, certificate)).key_id)
    except UserError as error:
        return error.code


@pytest.mark.parametrize(
    "name",
    ["CN=billing", "URI:spiffe://acme/billing", "DNS:Billing.ACME", PRINT, "sha256:" + ":".join(["AB"] * 32)],
)
def test_a_client_certificate_stands_for_a_key(tmp_path: Path, name: str) -> None:
    """The last form is what `openssl x509 -fingerprint -sha256` prints."""
    entry_ = {"id": "bill", "client_cert": name, "tenant": "acme", "limits": {"max_concurrent": 3}}
    keys = certificate_keys(tmp_path, entry_)
    caller = run(keys.identify(Headers([]), INFERENCE, FRIEND))
    assert (caller.key_id, caller.tenant, caller.key_limits.max_concurrent) == ("bill", "acme", 3)
    assert known_as(keys, "", STRANGER) == known_as(keys, "", None) == "invalid_api_key"
    # what is sent decides: a proxy's certificate does not stand for its callers, and a wrong key is not passed over
    assert known_as(keys, "key-k", FRIEND) == "k" and known_as(keys, "wrong", FRIEND) == "invalid_api_key"
    # the word that clients send because theirs insists on one is no key
    assert known_as(keys, "EMPTY", FRIEND) == "bill" and known_as(keys, "EMPTY", None) == "invalid_api_key"


def test_a_key_may_be_bound_to_a_certificate(tmp_path: Path) -> None:
    keys = certificate_keys(tmp_path, {"id": "b", "hash": hashed("key-b"), "client_cert": "CN=billing"})
    assert known_as(keys, "key-b", FRIEND) == "b"
    for certificate in (STRANGER, None):
        with pytest.raises(UserError) as error:
            run(keys.identify(bearer("key-b"), INFERENCE, certificate))
        assert (error.value.status, error.value.code) == (401, "client_certificate_required")
    assert known_as(keys, "", FRIEND) == "invalid_api_key", "half of what is needed"


def test_the_most_specific_entry_of_a_certificate_decides(tmp_path: Path) -> None:
    """A lost certificate is shut out by its fingerprint while its successor with the same name goes on."""
    lost = {"id": "lost", "client_cert": PRINT, "revoked": True}
    keys = certificate_keys(tmp_path, {"id": "all", "client_cert": "CN=billing"}, lost)
    assert known_as(keys, "", FRIEND) == "invalid_api_key"
    assert known_as(keys, "", PeerCertificate(("SHA256:" + "ef" * 32, "CN=billing"))) == "all"
    old = {"id": "old", "client_cert": "CN=billing", "expires": "2026-01-01T00:00:00Z"}
    assert known_as(certificate_keys(tmp_path, old), "", FRIEND) == "expired_api_key"
    narrow = {"id": "n", "client_cert": "CN=billing", "scopes": ["metrics"]}
    assert known_as(certificate_keys(tmp_path, narrow), "", FRIEND) == "insufficient_scope"


def test_who_has_to_show_a_key() -> None:
    open_, closed = KeyPolicy(), KeyPolicy(metrics_need_key=True)
    assert [Keys(k, b"s", policy=p).required_for_metrics for k in ((), ("key-1",)) for p in (open_, closed)] == [
        False, False, False, True,
    ]  # fmt: skip


def test_whether_certificates_are_looked_for(tmp_path: Path) -> None:
    assert not certificate_keys(tmp_path).knows_certificates
    assert certificate_keys(tmp_path, {"id": "c", "client_cert": "CN=x"}).knows_certificates
