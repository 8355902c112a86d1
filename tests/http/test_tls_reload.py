"""Certificates: made by `vsrv cert`, checked by real clients, swapped while requests run, and kept when the new ones are no good."""

from __future__ import annotations

import asyncio
import datetime
import os
import shutil
import ssl
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from test_http_server import GET, Served, echo

from vsrv import cli
from vsrv.certificates import CertificateWish, MadeFiles, make
from vsrv.errors import ConfigError
from vsrv.http.tls import TlsFiles, TlsKeeper
from vsrv.http.values import PeerCertificate, Request, Response


def made(folder: Path, **wish: object) -> MadeFiles:
    return make(CertificateWish(folder, **wish))  # type: ignore[arg-type]


def files_of(pair: MadeFiles, **more: object) -> TlsFiles:
    return TlsFiles(str(pair.certificate), str(pair.key), **more)  # type: ignore[arg-type]


def client(ca: Path, pair: MadeFiles | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default of newer Pythons
    context.set_alpn_protocols(["h2", "http/1.1"])
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


async def asked(port: int, context: ssl.SSLContext, name: str = "localhost") -> tuple[int, str | None]:
    """(serial number of the server's certificate, ALPN) of one request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    try:
        writer.write(GET + b"\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        tls = writer.get_extra_info("ssl_object")
        return int(tls.getpeercert()["serialNumber"], 16), tls.selected_alpn_protocol()
    finally:
        writer.close()


def test_vsrv_cert_makes_what_clients_accept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "certs"
    assert cli.main(["cert", "--out", str(folder)]) == 0
    assert "--ssl-certfile" in capsys.readouterr().out
    assert cli.main(["cert", "--out", str(folder), "--client", "tenant-a"]) == 0
    assert "--ssl-cert-reqs 2" in capsys.readouterr().out
    for name in ("ca.key", "server.key", "client.key"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert cli.main(["cert", "--out", str(folder)]) == 78 and "--force" in capsys.readouterr().err
    before = (folder / "ca.pem").read_bytes(), (folder / "server.pem").read_bytes()
    assert cli.main(["cert", "--out", str(folder), "--force", "--name", "a.example", "10.0.0.1"]) == 0
    assert (folder / "ca.pem").read_bytes() == before[0] and (folder / "server.pem").read_bytes() != before[1]
    for arguments in (["--days", "0"], ["--name", "ü.example"], ["--client", "x" * 65]):
        assert cli.main(["cert", "--out", str(folder), "--force", *arguments]) == 78
    (folder / "ca.key").unlink()
    assert cli.main(["cert", "--out", str(folder), "--force"]) == 78, "another authority under the old name"

    async def check() -> None:
        pair = made(tmp_path / "b")
        with pytest.raises(ConfigError, match="not the key"):
            shutil.copy(tmp_path / "b" / "ca.key", folder / "ca.key")
            made(folder, force=True)
        async with Served(echo, tls=TlsKeeper(files_of(pair)).context) as served:
            for name in ("localhost", "127.0.0.1", "::1"):
                assert (await asked(served.port, client(pair.ca), name))[1] == "http/1.1"
            with pytest.raises(ssl.SSLCertVerificationError):
                await asked(served.port, client(pair.ca), "b.example")
            with pytest.raises(ssl.SSLCertVerificationError):
                await asked(served.port, client(folder / "ca.pem"))

    asyncio.run(check())


def test_client_certificates(tmp_path: Path) -> None:
    pair, other = made(tmp_path / "a"), made(tmp_path / "b", client="stranger")
    friend = made(tmp_path / "a", client="friend")

    async def check() -> None:
        strict = files_of(pair, ca_certs=str(pair.ca), cert_reqs=2)
        async with Served(echo, tls=TlsKeeper(strict).context) as served:
            await asked(served.port, client(pair.ca, friend))
            for wrong in (None, other):
                with pytest.raises((OSError, AssertionError)):  # TLS 1.3 tells it with the first read
                    await asked(served.port, client(pair.ca, wrong))
        optional = files_of(pair, ca_certs=str(pair.ca), cert_reqs=1)
        async with Served(echo, tls=TlsKeeper(optional).context) as served:
            await asked(served.port, client(pair.ca))

    asyncio.run(check())


def test_names_of_a_client_certificate(tmp_path: Path) -> None:
    """The expected names are written down from what the certificate was built with; the fingerprint is cryptography's."""
    pair = made(tmp_path / "a")
    key = serialization.load_pem_private_key((tmp_path / "a" / "ca.key").read_bytes(), None)
    authority = x509.load_pem_x509_certificate(pair.ca.read_bytes())
    seen: list[PeerCertificate | None] = []

    async def app(request: Request) -> Response:
        seen.append(request.certificate)
        return Response(200, [], b"ok")

    def signed(stem: str, common: list[str], alternatives: list[x509.GeneralName]) -> MadeFiles:
        own = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        built = x509.CertificateBuilder().issuer_name(authority.subject).public_key(own.public_key())
        built = built.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n) for n in common]))
        built = built.serial_number(7).not_valid_before(now - datetime.timedelta(days=1))
        built = built.not_valid_after(now + datetime.timedelta(days=1))
        if alternatives:
            built = built.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        files = MadeFiles(pair.ca, tmp_path / f"{stem}.pem", tmp_path / f"{stem}.key", False)
        certificate = built.sign(key, hashes.SHA256())
        files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            own.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        prints.append("SHA256:" + certificate.fingerprint(hashes.SHA256()).hex())
        return files

    prints: list[str] = []
    several: list[x509.GeneralName] = [
        x509.DNSName("Billing.acme"),
        x509.UniformResourceIdentifier("spiffe://acme/billing"),
        x509.RFC822Name("bill@acme.example"),
    ]
    rich, plain = signed("rich", ["billing"], several), signed("plain", ["one", "two"], [])

    async def check() -> None:
        optional = files_of(pair, ca_certs=str(pair.ca), cert_reqs=1)
        async with Served(app, tls=TlsKeeper(optional).context) as served:
            for shown in (rich, plain, None):
                await asked(served.port, client(pair.ca, shown))

    asyncio.run(check())
    first = (
        prints[0],
        "URI:spiffe://acme/billing",
        "email:bill@acme.example",
        "DNS:billing.acme",
        "CN=billing",
    )
    assert seen == [PeerCertificate(first), PeerCertificate((prints[1],)), None]


@pytest.mark.parametrize(
    "suite", ["AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384", "AES256-GCM-SHA384"]
)
def test_only_ephemeral_aead_suites(tmp_path: Path, suite: str) -> None:
    pair = made(tmp_path)

    async def check() -> None:
        async with Served(echo, tls=TlsKeeper(files_of(pair)).context) as served:
            context = client(pair.ca)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            await asked(served.port, context)  # TLS 1.2 as such is served
            context.set_ciphers(suite + ":@SECLEVEL=0")
            with pytest.raises(OSError):
                await asked(served.port, context)

    asyncio.run(check())


@pytest.mark.parametrize(
    "configured, served",
    [
        (None, ["X25519", "prime256v1", "secp384r1"]),
        ("Groups = secp521r1", ["secp521r1"]),  # what the host's administrator chose stays
    ],
)
def test_groups_of_the_key_exchange(tmp_path: Path, configured: str | None, served: list[str]) -> None:
    """Mozilla's intermediate list. In a process of its own, since OpenSSL's configuration holds for a whole process."""
    pair = made(tmp_path)
    host = tmp_path / "openssl.cnf"
    host.write_text(
        f"openssl_conf = m\n[m]\nssl_conf = s\n[s]\nsystem_default = d\n[d]\n{configured}\n"
        if configured
        else "\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", _HANDSHAKES, str(pair.certificate), str(pair.key), str(pair.ca)],
        env={**os.environ, "OPENSSL_CONF": str(host)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == served, done.stderr


_HANDSHAKES = """
import ssl, sys
from vsrv.http.tls import TlsFiles, TlsKeeper
keeper = TlsKeeper(TlsFiles(*sys.argv[1:3]))
for group in ("X25519", "prime256v1", "secp384r1", "secp521r1", "X448"):
    client = ssl.create_default_context(cafile=sys.argv[3])
    try:
        client.set_ecdh_curve(group)
    except ValueError:
        continue  # a build of OpenSSL without it
    pipes = [ssl.MemoryBIO() for _ in range(4)]
    ours = keeper.context.wrap_bio(pipes[0], pipes[1], server_side=True)
    theirs = client.wrap_bio(pipes[2], pipes[3], server_hostname="localhost")
    finished = set()
    try:
        for _ in range(4):
            for end in (theirs, ours):
                try:
                    end.do_handshake()
                    finished.add(end)
                except ssl.SSLWantReadError:
                    pass  # the other end's turn
                pipes[0].write(pipes[3].read())
                pipes[2].write(pipes[1].read())
    except ssl.SSLError:
        continue
    if len(finished) == 2:
        print(group)
"""


def settled(keeper: TlsKeeper) -> bool:
    """Two looks, as the server's tick has them."""
    return [keeper.has_changed(), keeper.has_changed()] == [False, True]


def test_changes_are_seen_once_they_have_settled(tmp_path: Path) -> None:
    pair = made(tmp_path)
    keeper = TlsKeeper(files_of(pair, ca_certs=str(pair.ca)))
    assert not settled(keeper)
    made(tmp_path, force=True)
    assert settled(keeper)
    keeper.reload()
    assert not settled(keeper)
    os.utime(pair.ca, ns=(1, 1))
    assert settled(keeper)
    keeper.reload()
    assert not keeper.has_changed()
    made(tmp_path, force=True)
    assert not keeper.has_changed()
    made(tmp_path, force=True)
    assert not keeper.has_changed(), "still being written"
    assert keeper.has_changed()


def test_a_folder_that_is_switched_is_seen(tmp_path: Path) -> None:
    """Kubernetes writes a new folder and renames the symbolic link ..data to it."""
    for name in ("one", "two"):
        made(tmp_path / name)
    (tmp_path / "..data").symlink_to("one")
    for name in ("server.pem", "server.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    keeper = TlsKeeper(TlsFiles(str(tmp_path / "server.pem"), str(tmp_path / "server.key")))
    (tmp_path / "..new").symlink_to("two")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert settled(keeper)
    old = keeper.context
    keeper.reload()
    assert keeper.context is not old


@pytest.mark.parametrize("fault", ["other key", "no file", "half a file", "expired"])
def test_whatever_is_wrong_with_the_new_files_the_old_ones_go_on(tmp_path: Path, fault: str) -> None:
    pair, other = made(tmp_path / "a"), made(tmp_path / "b")
    keeper = TlsKeeper(files_of(pair))
    context, end = keeper.context, keeper.not_after
    if fault == "other key":
        shutil.copy(other.key, pair.key)
    elif fault == "no file":
        pair.certificate.unlink()
    elif fault == "half a file":
        pair.certificate.write_bytes(pair.certificate.read_bytes()[:200])
    else:
        expired(pair)
    assert settled(keeper)
    with pytest.raises(ConfigError, match="--ssl-"):
        keeper.reload()
    assert keeper.context is context and keeper.not_after == end
    assert not settled(keeper), "tried again and again"
    made(tmp_path / "a", force=True)
    assert settled(keeper)
    keeper.reload()
    assert keeper.context is not context


def expired(pair: MadeFiles) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    begin, end = now - datetime.timedelta(days=9), now - datetime.timedelta(days=1)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(1).not_valid_before(begin).not_valid_after(end)
    pem = serialization.Encoding.PEM
    pair.certificate.write_bytes(built.sign(key, hashes.SHA256()).public_bytes(pem))
    plain = serialization.NoEncryption()
    pair.key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))


def test_the_end_of_a_certificate_is_told(tmp_path: Path) -> None:
    pair = made(tmp_path, days=30)
    keeper = TlsKeeper(files_of(pair))
    now = time.time()
    assert keeper.not_after == pytest.approx(now + 30 * 86400, abs=60)
    assert keeper.warning(now) is None and keeper.warning(now + 15 * 86400) is None
    assert "expires in 9 days" in str(keeper.warning(now + 20.5 * 86400))
    assert "has expired" in str(keeper.warning(now + 31 * 86400))
    expired(pair)
    assert TlsKeeper(files_of(pair)).warning(now), "an expired one is no reason not to start"


def test_one_hundred_swaps_under_load_fail_no_request(tmp_path: Path) -> None:
    live = tmp_path / "live"
    live.mkdir()
    stock = []
    for _ in range(4):
        pair = made(tmp_path / "pairs", force=True)
        stock.append((pair.certificate.read_bytes(), pair.key.read_bytes()))
    ca = pair.ca

    def write(number: int) -> None:
        for name, data in zip(("server.pem", "server.key"), stock[number % 4], strict=True):
            (live / "new").write_bytes(data)
            (live / "new").rename(live / name)

    async def check() -> None:
        write(0)
        keeper = TlsKeeper(TlsFiles(str(live / "server.pem"), str(live / "server.key")))
        async with Served(echo, tls=keeper.context) as served:
            context, serials, done = client(ca), set(), [0]
            held_reader, held = await asyncio.open_connection(
                "127.0.0.1", served.port, ssl=context, server_hostname="localhost"
            )

            async def load() -> None:
                while swapping:
                    serials.add((await asked(served.port, context))[0])
                    done[0] += 1

            swapping = True
            clients = [asyncio.create_task(load()) for _ in range(4)]
            for number in range(1, 101):
                write(number)
                assert settled(keeper)
                await asyncio.get_running_loop().run_in_executor(None, keeper.reload)
                served.server.tls = keeper.context
                await asyncio.sleep(0.01)
            swapping = False
            await asyncio.gather(*clients)
            held.write(GET + b"\r\n")  # opened under the first certificate
            assert (await held_reader.read()).startswith(b"HTTP/1.1 200")
            held.close()
            assert len(serials) == 4
            print(
                f"100 certificate swaps, {done[0]} requests beside them, 0 failed, 1 connection kept throughout"
            )

    asyncio.run(check())
