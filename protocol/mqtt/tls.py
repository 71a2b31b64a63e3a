"""TLS of a session, where both sides show certificates of the fleet's own authorities; and TLS to a mirror."""

import ssl
from pathlib import Path

from protocol.errors import FlagshipError

_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL; Python has no name for it."""


class TlsFilesError(FlagshipError):
    """A certificate or key file is missing or is not what its name says."""


def mirror_context(
    ca: Path | None, identity: tuple[Path, Path] | None = None, *, check_time: bool = True
) -> ssl.SSLContext:
    """TLS 1.2 or newer to a web server. Reads files.

    Args:
        ca: What its certificate must chain to; None: what this system trusts, and then time is always checked.
        identity: (certificate, key) to show; None: none.
        check_time: As in ``tls_context``.

    Raises:
        TlsFilesError: A file is missing or is not what its name says; names the file.
    """
    named = [path.name for path in (ca, *(identity or ())) if path]
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(ca) if ca else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        if ca and not check_time:
            context.verify_flags |= _NO_CHECK_TIME
        if identity:
            context.load_cert_chain(*map(str, identity))
    except (OSError, ssl.SSLError) as error:
        raise TlsFilesError(f"TLS with {', '.join(named)}: {error}") from error
    return context


def tls_context(ca: Path, certificate: Path, key: Path, *, check_time: bool = True) -> ssl.SSLContext:
    """TLS 1.2 or newer, both sides with certificates. Reads files.

    Args:
        check_time: Whether a certificate that is not valid now is refused; only for a ``ca`` of our own is that safe
            to leave out.

    Raises:
        TlsFilesError: A file is missing or is not what its name says; names the file.
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not check_time:
            context.verify_flags |= _NO_CHECK_TIME
        context.load_cert_chain(str(certificate), str(key))
    except (OSError, ssl.SSLError) as error:
        raise TlsFilesError(f"TLS with {ca.name}, {certificate.name}, {key.name}: {error}") from error
    return context
