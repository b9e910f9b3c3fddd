"""Whom outbound connections trust, and as whom they come: one SSLContext for each distinct setting.

Contexts are built when a config is loaded, but for destinations that are plain HTTP: most of the price is reading whom
the machine trusts, which nobody there asks. One whose files have not changed is taken over at a reload, and with it the
connections that are open under it; one whose files have changed is another context, and aiohttp keeps connections of
different contexts apart.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from yarl import URL

from relay import authorities
from relay.unreachable import Stage, reached
from relay.wireschema import ClientTls

Setting = tuple[bool, object, object, object]
"""What makes a context: `verify`, and what is in the files."""


class Unusable(Exception):
    """A file that cannot be used. `key` is the config's."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class _Handshake(ssl.SSLObject):
    """Says that the handshake has begun, and keeps the certificates of a failed one, so that it can be said why."""

    def do_handshake(self) -> None:
        reached(Stage.HANDSHAKE)
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            error.certificates = _shown(self)  # type: ignore[attr-defined]
            raise


def _shown(connection: ssl.SSLObject) -> list[bytes]:
    """The certificates that the server showed, as DER. Public from Python 3.13 on; OpenSSL has them from 3.0 on."""
    if hasattr(connection, "get_unverified_chain"):
        chain = connection.get_unverified_chain()
        return [bytes(der) for der in chain or ()]
    ask: Any = getattr(getattr(connection, "_sslobj", None), "get_unverified_chain", lambda: None)
    return [bytes(certificate.public_bytes(_DER)) for certificate in ask() or ()]


_DER = 2  # _ssl.ENCODING_DER


class Contexts:
    """The contexts of one config, some of them taken over from the one before."""

    def __init__(self, before: Contexts | None = None) -> None:
        self._before: Mapping[Setting, ssl.SSLContext] = before._made if before is not None else {}
        self._made: dict[Setting, ssl.SSLContext] = {}

    def settle(self) -> None:
        """All are made: what the config before had besides is forgotten."""
        self._before = {}

    def needed(self, section: ClientTls, url: URL) -> ssl.SSLContext | None:
        """As `of`; None where nothing is asked for, and the URL does not lead to TLS. Raises Unusable."""
        if section == ClientTls() and url.scheme == "http":
            return None
        return self.of(section)

    def of(self, section: ClientTls) -> ssl.SSLContext:
        """The context for a setting. Raises Unusable."""
        contents = {
            key: _read(key, path) for key in ("ca", "cert", "key") if (path := getattr(section, key)) is not None
        }
        digests = {key: sha256(content).digest() for key, content in contents.items()}
        trusted = digests.get("ca") or _system_store()
        setting = section.verify, trusted, digests.get("cert"), digests.get("key")
        if setting not in self._made:
            self._made[setting] = self._before.get(setting) or _context(section, contents.get("ca"))
        return self._made[setting]


def _read(key: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(4 << 20)
    except (OSError, ValueError) as error:
        raise Unusable(key, f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def _system_store() -> object:
    """What tells when the machine's own list of authorities has been renewed."""
    found = []
    for path in authorities.places():
        try:
            status = os.stat(path)
        except OSError:
            continue  # it has gone this moment
        found.append((path, status.st_mtime_ns, status.st_size))
    return tuple(found)


def system_context() -> ssl.SSLContext:
    """What this machine trusts, for another protocol than HTTP."""
    context = _blank()
    authorities.trust(context)
    return context


def _blank() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslobject_class = _Handshake
    return context


def _context(section: ClientTls, ca: bytes | None) -> ssl.SSLContext:
    context = _blank()
    context.set_alpn_protocols(["http/1.1"])
    if not section.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca is None:
        authorities.trust(context)
    if ca is not None:
        # A certificate that is named is trusted as it is, also one whose own issuer is not.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        _trust(context, str(section.ca), ca)
    if section.cert is not None:
        _come_as(context, section.cert, section.key)
    return context


def _trust(context: ssl.SSLContext, path: str, ca: bytes) -> None:
    try:
        context.load_verify_locations(cadata=ca.decode("ascii", "ignore"))
    except ssl.SSLError as error:
        raise Unusable("ca", f"{path} holds no certificates in PEM form ({error.reason or 'not PEM'})") from None
    if not context.cert_store_stats()["x509"]:
        raise Unusable("ca", f"{path} holds no certificates in PEM form")


def _come_as(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    def ask() -> str:
        raise Unusable("cert" if key is None else "key", f"the private key in {key or cert} is encrypted")

    try:
        context.load_cert_chain(cert, key, password=ask)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise Unusable("key" if key is not None else "cert", f"{key or cert} is not the key of {cert}") from None
        where = f"{cert} and {key}" if key is not None else f"{cert} alone (is its key in another file? name it as key)"
        what = (error.reason or "not PEM").replace("_", " ").lower()
        raise Unusable("cert", f"no certificate with its key in PEM form in {where}: {what}") from None
    except OSError as error:
        raise Unusable("cert", f"cannot read {cert} and {key}: {error.strerror}") from None
