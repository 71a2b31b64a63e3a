"""Revocation lists of the fleet's two CAs: signed, written durably, read back. Blocking.

A list is valid for seven days and is written anew every day, because mosquitto refuses every client of a CA whose list
has run out: an orchestrator that is down for a week must not lock its fleet out, one that is down for a day never does.

What an older list names stays named until no such certificate can be valid any more, whatever the database says: one
that was restored from a backup, or that lost its last moments with the power, lets nobody in again.

Where a file holds several CAs, as it does while a fleet moves from one to another, there is a list for each in one
file: mosquitto refuses every client of a CA without one. Lists of CAs whose keys are elsewhere are kept as they are.

Each list also names the *probe* that was made with it: a certificate that was revoked before it was ever used. A broker
that refuses it as revoked has loaded this list or a newer one; there is no other way to learn that.
"""

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from orchestrator.durable import replace_durably
from orchestrator.errors import NotFoundError, OperationError
from orchestrator.fleet.authority import BACKDATED, CA_LIFE, Authority, load_authority

CRL_LIFE = timedelta(days=7)
CRL_RENEWAL = timedelta(days=1)
CRL_ALARM = CRL_LIFE / 2
"""A list that is older than this was not renewed for days: somebody must look."""
CRL_KEPT = CA_LIFE
"""No certificate lives longer, so none needs to be named longer."""
PROBE = "crl-probe"
MAX_CRL_BYTES = 64 * 2**20

Revoked = Mapping[int, datetime]
"""Serial -> since when."""
_BLOCK = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----\n?", re.DOTALL)
_PROBE_REASON = x509.ReasonFlags.cessation_of_operation


@dataclass(frozen=True, slots=True)
class Crl:
    """What a list says; its probe is not among the revoked."""

    number: int
    issued: datetime
    expires: datetime
    revoked: Revoked


@dataclass(frozen=True, slots=True)
class Probe:
    """The certificate and key of a list's probe, in PEM. Worth nothing: it was revoked before it existed."""

    serial: int
    pem: bytes


def make_probe(authority: Authority, now: datetime) -> Probe:
    """A client certificate that lives as long as the list that revokes it; the dot in its name says: no device."""
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{PROBE}.{serial:x}"[:64])]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + CRL_LIFE)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(_issuer(authority), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Probe(serial, certificate.public_bytes(Encoding.PEM) + private)


def sign_crl(authority: Authority, revoked: Revoked, number: int, now: datetime, probe: Probe | None = None) -> bytes:
    """A list in PEM (RFC 5280, 5.1), from five minutes ago until ``CRL_LIFE`` from now."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now - BACKDATED)
        .next_update(now + CRL_LIFE)
        .add_extension(_issuer(authority), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for serial, since in sorted(revoked.items()):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since)
        builder = builder.add_revoked_certificate(entry.build())
    if probe is not None:
        entry = x509.RevokedCertificateBuilder().serial_number(probe.serial).revocation_date(now)
        builder = builder.add_revoked_certificate(entry.add_extension(x509.CRLReason(_PROBE_REASON), False).build())
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def write_crl(
    path: Path,
    authority: Authority,
    revoked: Revoked,
    now: datetime,
    probe: Probe | None = None,
    others: Sequence[Authority] = (),
) -> Crl:
    """Put a new file of lists in the place of the old one, with the next number; durable when it returns.

    Args:
        authority: The CA that issues; its list stands first.
        revoked: What must be named; what the old lists name stays besides.
        others: CAs that issued before and whose keys are here too.
    """
    try:
        old, foreign = read_crl(path), _foreign(path, [authority, *others])
        number, named = old.number + 1, {s: since for s, since in old.revoked.items() if now - since < CRL_KEPT}
    except OperationError:  # missing or damaged: it is made right
        number, named, foreign = max(1, int(now.timestamp())), {}, b""
    named = {**named, **revoked}
    pem = sign_crl(authority, named, number, now, probe)
    pem += b"".join(sign_crl(other, named, number, now) for other in others) + foreign
    try:
        replace_durably(path, pem)
    except OSError as error:
        raise OperationError(f"{path}: cannot be written: {error.strerror or error}; the old list stays") from error
    return read_crl(path)


def read_crl(path: Path) -> Crl:
    """Read a file of lists back: number and time of the first, the end of the one that ends first, what any names.

    Raises:
        NotFoundError: There is none.
        OperationError: It is no list.
    """
    try:
        lists = _read(path)
        first, ends = lists[0], [one.next_update_utc for one in lists]
        number = first.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (ValueError, IndexError, x509.ExtensionNotFound) as error:
        raise OperationError(f"{path}: expected a numbered revocation list in PEM; remove it") from error
    expires = min((end for end in ends if end is not None), default=None)
    if expires is None or None in ends:
        raise OperationError(f"{path}: expected lists that say when the next one comes; remove it")
    revoked = {entry.serial_number: entry.revocation_date_utc for one in lists for entry in one if not _is_probe(entry)}
    return Crl(number, first.last_update_utc, expires, revoked)


def authorities(directory: Path, name: str) -> list[Authority]:
    """The CA ``NAME`` that issues, and those beside it in its file whose keys lie in the directory under any name.

    Raises:
        NotFoundError: The key of the one that issues is not here.
        OperationError: A file is not what it should be.
    """
    first = load_authority(directory, name)
    found = [first]
    for certificate in x509.load_pem_x509_certificates((directory / f"{name}.pem").read_bytes())[1:]:
        for file in sorted(directory.glob("*.key")):
            with contextlib.suppress(ValueError, TypeError, OSError):
                key = load_pem_private_key(file.read_bytes(), None)
                if isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == certificate.public_key():
                    found.append(Authority(certificate, key))
                    break
    return found


def without_list(bundle: Path, path: Path) -> list[str]:
    """CAs of a file that have no list; every client of theirs is refused. A root that only signs CAs needs none.

    Raises:
        OperationError: The file of lists cannot be read.
    """
    lists = _read(path)
    certificates = x509.load_pem_x509_certificates(bundle.read_bytes())
    issuing = [one for one in certificates if not any(_issued(one, other) for other in certificates if other != one)]
    return [one.subject.rfc4514_string() for one in issuing if not any(_is_by(crl, one) for crl in lists)]


def _issued(ca: x509.Certificate, other: x509.Certificate) -> bool:
    try:
        other.verify_directly_issued_by(ca)
    except (TypeError, ValueError, InvalidSignature):
        return False
    return True


def _is_by(crl: x509.CertificateRevocationList, ca: x509.Certificate) -> bool:
    # By signature: two CAs of one fleet may well have one name.
    with contextlib.suppress(TypeError, ValueError):
        return crl.is_signature_valid(ca.public_key())  # type: ignore[arg-type]
    return False


def _read(path: Path) -> list[x509.CertificateRevocationList]:
    try:
        with path.open("rb") as file:
            pem = file.read(MAX_CRL_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: there is no revocation list; 'flagship serve' writes it") from error
    except OSError as error:
        raise OperationError(f"{path}: cannot be read: {error.strerror}") from error
    if len(pem) > MAX_CRL_BYTES:
        raise OperationError(f"{path}: expected a revocation list of at most {MAX_CRL_BYTES} B, found more")
    return [x509.load_pem_x509_crl(block) for block in _BLOCK.findall(pem)]


def _foreign(path: Path, ours: Sequence[Authority]) -> bytes:
    """Lists that somebody else signed, as they stand."""
    keys = [authority.key.public_key() for authority in ours]
    kept = [one for one in _read(path) if not any(one.is_signature_valid(key) for key in keys)]
    return b"".join(one.public_bytes(Encoding.PEM) for one in kept)


def _is_probe(entry: x509.RevokedCertificate) -> bool:
    return any(
        isinstance(extension.value, x509.CRLReason) and extension.value.reason is _PROBE_REASON
        for extension in entry.extensions
    )


def _issuer(authority: Authority) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
