"""What of a home runs out: the roles of its published metadata, and its certificates. Reads files; blocking.

Needs no serve: ``doctor`` asks when nothing runs any more. What is due when is said in ``expiry``.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from tuf.api.metadata import Metadata
from tuf.api.serialization import DeserializationError

from orchestrator.config import Home
from orchestrator.errors import OperationError
from orchestrator.expiry import Expiring, life_of

TIMESTAMP = "timestamp.json"
RENEW = "run 'flagship trust renew' where the release keys are"
DAILY = "serve renews it daily: see that it runs and reaches its broker"
REPLACE = "issue a new one and restart serve"


def expiring_in(home: Home) -> list[Expiring]:
    """Everything that runs out, what runs out first first.

    Raises:
        OperationError: A file is missing, cannot be read or is damaged.
    """
    found = [*_roles(home.trust), *_certificates(home)]
    return sorted(found, key=lambda thing: thing.expires)


def _roles(trust: Path) -> list[Expiring]:
    newest: dict[str, tuple[int, Path]] = {}
    for path in trust.glob("[0-9]*.json"):
        number, _, role = path.name.removesuffix(".json").partition(".")
        if number.isdecimal() and int(number) > newest.get(role, (0, path))[0]:
            newest[role] = (int(number), path)
    missing = {"root", "targets", "snapshot"} - set(newest)
    if missing:
        raise OperationError(f"{trust}: no {', '.join(sorted(missing))} metadata; restore it from a backup")
    files = {role: path for role, (_, path) in newest.items()} | {"timestamp": trust / TIMESTAMP}
    return [
        Expiring("role", role, _signed(path).expires, life_of(role), DAILY if role == "timestamp" else RENEW)
        for role, path in files.items()
    ]


def _signed(path: Path) -> Any:  # noqa: ANN401 - any role's metadata
    try:
        return Metadata[Any].from_bytes(path.read_bytes()).signed
    except OSError as error:
        raise OperationError(f"{path}: cannot be read: {error.strerror or error}; restore it from a backup") from error
    except DeserializationError as error:
        raise OperationError(f"{path}: expected TUF metadata; restore it from a backup") from error


def _certificates(home: Home) -> list[Expiring]:
    found = []
    for path in (*sorted(home.ca.glob("*.pem")), *sorted(home.tls.glob("*.pem"))):
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except OSError as error:
            raise OperationError(f"{path}: cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise OperationError(f"{path}: expected a certificate in PEM; restore it from a backup") from error
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        found.append(Expiring("certificate", path.stem, end, max(end - begin, timedelta(0)), REPLACE))
    return found
