"""Where this machine keeps whom it trusts.

OpenSSL looks where it was told to when it was built. One that came from another system, as the single file's, may look
in vain: then there are the places that systems are known to use.
"""

from __future__ import annotations

import contextlib
import os
import ssl

ELSEWHERE = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch, Gentoo, NixOS
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL, their elders
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # Alpine, BSDs
)


def places() -> list[str]:
    """The file and the folder there are; none on a machine that trusts nobody."""
    paths = ssl.get_default_verify_paths()
    found = [path for path in (paths.cafile, paths.capath) if path is not None and _holds_something(path)]
    if found or paths.openssl_cafile_env in os.environ or paths.openssl_capath_env in os.environ:
        return found
    return [path for path in ELSEWHERE if _holds_something(path)][:1]


def trust(context: ssl.SSLContext) -> None:
    """Trust whom this machine trusts."""
    context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    for path in places():
        # One of them that OpenSSL was told of has just been read, which takes a moment.
        if path in ELSEWHERE and not context.cert_store_stats()["x509"]:
            with contextlib.suppress(ssl.SSLError):  # no certificate is in it: nobody is trusted, as OpenSSL has it
                context.load_verify_locations(path)


def _holds_something(path: str) -> bool:
    try:
        return bool(os.listdir(path)) if os.path.isdir(path) else os.path.getsize(path) > 0
    except OSError:
        return False
