"""What is wrong with a TLS handshake, in words: what certificate was shown, until when it held, for whom."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from relay import authorities

if TYPE_CHECKING:
    from cryptography import x509

_NAMES_SHOWN = 5

# X509_V_ERR_… of OpenSSL
_NOT_YET_VALID, _EXPIRED = 9, 10
_SELF_SIGNED, _SELF_SIGNED_IN_CHAIN = 18, 19
_UNKNOWN_ISSUER = frozenset({2, 20, 21, 27})
_OTHER_NAME = frozenset({62, 63, 64})

_TOO_OLD = frozenset({"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "WRONG_SSL_VERSION"})
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"})
_WANTS_CERTIFICATE = frozenset({"TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_BAD_CERTIFICATE"})
_DOUBTS_OURS = frozenset(
    {"TLSV1_ALERT_UNKNOWN_CA", "SSLV3_ALERT_CERTIFICATE_UNKNOWN", "SSLV3_ALERT_CERTIFICATE_EXPIRED"}
    | {"SSLV3_ALERT_CERTIFICATE_REVOKED", "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE", "TLSV1_ALERT_ACCESS_DENIED"}
)


def tls_message(error: BaseException, host: str) -> str:
    """A failed handshake, in words."""
    cause = _cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _certificate_message(cause, host)
    reason = (cause.reason if cause is not None else None) or ""
    if reason in _TOO_OLD:
        return "the server offers only TLS 1.1 or older; relay speaks TLS 1.2 and 1.3"
    if reason in _NO_TLS:
        return "the server does not speak TLS on this port"
    if reason in _WANTS_CERTIFICATE:
        return "the server asks for a client certificate (to.tls.cert), or refuses the one that it was shown"
    if reason in _DOUBTS_OURS:
        return f"the server refuses the client certificate: {_plain(reason)}"
    if reason == "SSLV3_ALERT_HANDSHAKE_FAILURE":
        return (
            "the server refuses the handshake: no cipher in common, or it asks for a client certificate (to.tls.cert)"
        )
    if reason == "UNEXPECTED_EOF_WHILE_READING":
        return "the destination closed the connection during the TLS handshake"
    return f"TLS failed: {_plain(reason) or 'handshake failure'}"


def _cause(error: BaseException | None) -> ssl.SSLError | None:
    while error is not None:
        inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
        if isinstance(inner, ssl.SSLError):
            return inner
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__
    return None


def _plain(reason: str) -> str:
    return reason.removeprefix("SSLV3_ALERT_").removeprefix("TLSV1_ALERT_").replace("_", " ").lower()


def _certificate_message(error: ssl.SSLCertVerificationError, host: str) -> str:
    shown = list(_parsed(getattr(error, "certificates", ())))
    now = datetime.now(UTC)
    code = error.verify_code
    if code == _EXPIRED:
        ended = next((one.not_valid_after_utc for one in shown if one.not_valid_after_utc <= now), None)
        return f"the certificate has expired{f' on {ended:%Y-%m-%d}' if ended is not None else ''}"
    if code == _NOT_YET_VALID:
        begins = next((one.not_valid_before_utc for one in shown if one.not_valid_before_utc > now), None)
        return f"the certificate is not valid yet{f', but from {begins:%Y-%m-%d} on' if begins is not None else ''}"
    if code in _OTHER_NAME:
        names = _names(shown[0]) if shown else []
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        others = ", ".join(names[:_NAMES_SHOWN]) or "none at all"
        return f"the certificate is for other names: {others}{more}; not for {host}"
    if code == _SELF_SIGNED:
        return "the certificate is self-signed (name it as to.tls.ca to trust it)"
    if code == _SELF_SIGNED_IN_CHAIN or code in _UNKNOWN_ISSUER:
        issuer = _issuer(shown[-1]) if shown else None
        by = f", {issuer}" if issuer else ""
        message = f"the certificate is from an unknown authority{by} (name its certificate as to.tls.ca to trust it)"
        if not authorities.places():
            message += "; this machine trusts nobody: install its ca-certificates, or name a file by SSL_CERT_FILE"
        return message
    return f"the certificate is not to be trusted: {error.verify_message}"


def _parsed(certificates: Iterable[bytes]) -> Iterable[x509.Certificate]:
    from cryptography import x509  # not imported before a certificate is refused: 8 MB of memory

    for der in certificates:
        try:
            yield x509.load_der_x509_certificate(der)
        except ValueError:
            return


def _names(certificate: x509.Certificate) -> list[str]:
    """Whom a certificate is for."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [printable(str(entry.value)) for entry in names if isinstance(entry, (x509.DNSName, x509.IPAddress))]


def _issuer(certificate: x509.Certificate) -> str | None:
    from cryptography.x509.oid import NameOID

    for kind in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME):
        for attribute in certificate.issuer.get_attributes_for_oid(kind):
            return printable(str(attribute.value))
    return None


def printable(text: str) -> str:
    """What a peer wrote, fit for a log line."""
    return "".join(c if c.isprintable() else "?" for c in text[:100])
