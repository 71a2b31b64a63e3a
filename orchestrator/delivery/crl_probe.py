"""Asking a broker which revocation list it has loaded: by showing it a certificate that is revoked in the newest."""

import asyncio
import contextlib
import socket
import ssl
import tempfile
from enum import StrEnum
from pathlib import Path

from orchestrator.fleet.crls import Probe

TIMEOUT_S = 5.0
LATE_ALERT_S = 0.5
"""With TLS 1.3 the client's side of the handshake ends before the server has looked at the certificate."""
TRIES = 3
"""A broker that closes at once may take its own alert back with a reset."""


class Answer(StrEnum):
    """What the broker did with the probe."""

    IN_FORCE = "in force"  # refused as revoked: it has this list, or a newer one
    NOT_YET = "not yet"  # let in: it has an older list, or none
    EXPIRED = "expired"  # its list has run out: it refuses everybody
    NO_ANSWER = "no answer"


async def ask(host: str, port: int, ca: Path, probe: Probe) -> Answer:
    """Begin one connection with the probe's certificate; nothing is said over it.

    Args:
        ca: What the broker's own certificate must chain to.
    """
    return await asyncio.to_thread(_ask, host, port, ca, probe)


def _ask(host: str, port: int, ca: Path, probe: Probe) -> Answer:
    context = _context(ca, probe)
    # TLS 1.2 says it within the handshake.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    for _ in range(TRIES):
        try:
            with (
                socket.create_connection((host, port), TIMEOUT_S) as raw,
                context.wrap_socket(raw, server_hostname=host) as session,
            ):
                if session.version() == "TLSv1.3":
                    session.settimeout(LATE_ALERT_S)
                    with contextlib.suppress(TimeoutError):
                        session.recv(1)
                return Answer.NOT_YET
        except ssl.SSLEOFError:
            continue
        except ssl.SSLError as error:
            reason = error.reason or ""
            if "PROTOCOL" in reason and context.maximum_version is ssl.TLSVersion.TLSv1_2:
                context.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
            elif "CERTIFICATE_REVOKED" in reason:
                return Answer.IN_FORCE
            elif "CERTIFICATE_EXPIRED" in reason:
                return Answer.EXPIRED
            else:
                return Answer.NO_ANSWER
        except (ConnectionResetError, BrokenPipeError):
            continue
        except OSError:
            break
    return Answer.NO_ANSWER


def _context(ca: Path, probe: Probe) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(ca))
    with tempfile.NamedTemporaryFile() as file:  # 0600; ssl reads keys from files only
        file.write(probe.pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context
