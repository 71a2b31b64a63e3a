"""Content keys of packages: opened here, wrapped for devices, never handed out."""

import base64
import binascii
from collections import OrderedDict

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from protocol.encryption import PACKAGE_RECIPIENT, unseal_manifest, unwrap_key, wrap_key
from protocol.envelopes import b64

MAX_WRAPS = 100_000
MAX_CONTENT_KEYS = 64


class ContentKeys:
    """What the package key opens. Not safe from several threads: the signer holds its lock."""

    def __init__(self, package: X25519PrivateKey) -> None:
        self._package = package
        self._opened: OrderedDict[str, bytes] = OrderedDict()
        self._wraps: OrderedDict[tuple[str, str, str], str] = OrderedDict()

    def known_wrap(self, sha256: str, device: str, content_key: str) -> str | None:
        """The wrap that was made before."""
        return self._wraps.get((sha256, device, content_key))

    def wrap(self, sealed_key: bytes, sha256: str, device: str, content_key: str) -> str:
        """The content key of a release for one device, base64; made once, since an offer is signed about four times.

        Args:
            sealed_key: As the package carries it.
            sha256: Of the sealed manifest, in hex: the release.
            content_key: The device's X25519 public key, base64.

        Raises:
            ContentError: E_KEY: the sealed key was made for another signer or another release.
            ValueError: The device's key is none.
        """
        known = self.known_wrap(sha256, device, content_key)
        if known is not None:
            return known
        try:
            recipient = X25519PublicKey.from_public_bytes(base64.b64decode(content_key, validate=True))
        except binascii.Error as error:
            raise ValueError("not base64") from error
        wrap = b64(wrap_key(self._open(sealed_key, sha256), recipient, release=sha256, device=device))
        self._wraps[sha256, device, content_key] = wrap
        if len(self._wraps) > MAX_WRAPS:
            self._wraps.popitem(last=False)
        return wrap

    def unseal(self, sealed_key: bytes, sealed: bytes, sha256: str) -> bytes:
        """A sealed manifest, decrypted and still packed.

        Raises:
            ContentError: E_KEY: the key is not for it.
        """
        return unseal_manifest(self._open(sealed_key, sha256), sealed)

    def _open(self, sealed_key: bytes, sha256: str) -> bytes:
        cek = self._opened.get(sha256)
        if cek is None:
            cek = unwrap_key(sealed_key, self._package, release=sha256, device=PACKAGE_RECIPIENT)
            self._opened[sha256] = cek
            if len(self._opened) > MAX_CONTENT_KEYS:
                self._opened.popitem(last=False)
        return cek
