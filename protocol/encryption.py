"""How bodies, manifests and content keys are encrypted. Pure functions over bytes.

    body key  ck  = HMAC-SHA256(DK, label | codec | SHA256(body))     DK never leaves the publisher
    cipher    c   = AES-256-GCM(ck, nonce 0, body)                    one key encrypts exactly one body
    id        cid = SHA256(c)                                         anyone can check it without keys
    sealed        = random nonce | AES-256-GCM(CEK, zstd(manifest))   one fresh CEK per seal
    wrap          = HPKE(X25519, HKDF-SHA256, AES-256-GCM) of the CEK; info binds release and device

A zero nonce is safe because equal keys mean equal bodies.
"""

import hashlib
import hmac
import os
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from protocol.chunks import MAX_BASE_BYTES, MIN_BASE_BYTES, TAG_BYTES, ChunkRef, Codec, DeltaRef
from protocol.errors import ContentError, ErrorCode
from protocol.manifest import MAX_MANIFEST_BYTES

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_LABEL = b"flagship-chunk-v1\0"
_SEAL_LABEL = b"flagship-manifest-v1"
_ZERO_NONCE = b"\0" * 12
_NONCE_BYTES = 12
_WINDOW_LOG_MAX = 21
_DELTA_WINDOW_LOG = 21
"""Room for the base, ``MAX_BASE_BYTES``, and the chunk."""
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
CEK_BYTES = 32
PACKAGE_RECIPIENT = "package"
"""Stands for the device in the wrap that a package carries to the signer."""


def make_body(plain: bytes | memoryview, level: int) -> tuple[Codec, bytes]:
    """Compress if that makes it smaller.

    Args:
        plain: One chunk.
        level: zstd level.
    """
    body = zstd.compress(plain, level)
    if len(body) < len(plain):
        return Codec.ZSTD, body
    return Codec.RAW, bytes(plain)


def make_delta(plain: bytes, base: bytes, level: int) -> bytes:
    """The body that makes ``plain`` together with ``base``.

    Raises:
        ValueError: The base is too short for zstd, or larger than a device takes.
    """
    if not MIN_BASE_BYTES <= len(base) <= MAX_BASE_BYTES:
        raise ValueError(f"a delta's base has {MIN_BASE_BYTES} to {MAX_BASE_BYTES} bytes")
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: level,
        zstd.CompressionParameter.window_log: _DELTA_WINDOW_LOG,
    }
    return zstd.compress(plain, options=options, zstd_dict=zstd.ZstdDict(base, is_raw=True))


def encrypt_body(secret: bytes, codec: Codec, body: bytes) -> tuple[bytes, bytes, bytes]:
    """Encrypt under a key that is derived from the body.

    Args:
        secret: The publisher's DK, 32 B.

    Returns:
        (cid, key, ciphertext).
    """
    digest = hashlib.sha256(body).digest()
    key = hmac.digest(secret, _LABEL + codec.value.encode() + b"\0" + digest, "sha256")
    ciphertext = AESGCM(key).encrypt(_ZERO_NONCE, body, None)
    return hashlib.sha256(ciphertext).digest(), key, ciphertext


def open_chunk(ref: ChunkRef, ciphertext: bytes) -> bytes:
    """Plain bytes of a chunk: id before decrypting, tag while decrypting, plain hash before handing out.

    Raises:
        ContentError: E_CHUNK, whatever is wrong with it.
    """
    body = _open_body(ref, ciphertext)
    match ref.codec:
        case Codec.RAW:
            plain = body
        case Codec.ZSTD:
            plain = _decompress(body, ref.length, f"chunk {ref.cid.hex()[:16]}")
        case Codec.DELTA:
            raise _bad(ref, "it is a delta")
    if len(plain) != ref.length or hashlib.sha256(plain).digest() != ref.sha256:
        raise _bad(ref, "its plain bytes are not what the manifest says")
    return plain


def open_delta_body(delta: DeltaRef, ciphertext: bytes) -> bytes:
    """The body of a delta that is what the manifest names: id before decrypting, tag while decrypting.

    Raises:
        ContentError: E_CHUNK: it is another.
    """
    return _open_body(delta, ciphertext)


def apply_delta(ref: ChunkRef, delta: DeltaRef, body: bytes, base: bytes) -> bytes:
    """Plain bytes of a chunk from a delta's body and the range of the former stream that it was made against.

    Raises:
        ContentError: E_CHUNK: they do not make the chunk; no fault of whoever delivered the body.
    """
    if len(base) != delta.base_length or hashlib.sha256(base).digest() != delta.base_sha256:
        raise _bad(delta, "its base is not what it was made against")
    dictionary = zstd.ZstdDict(base, is_raw=True)
    plain = _decompress(body, ref.length, f"chunk {delta.cid.hex()[:16]}", dictionary=dictionary)
    if len(plain) != ref.length or hashlib.sha256(plain).digest() != ref.sha256:
        raise _bad(delta, "its plain bytes are not what the manifest says")
    return plain


def seal_manifest(manifest_json: bytes) -> tuple[bytes, bytes]:
    """Seal a manifest under a fresh key that is never used again.

    Returns:
        (cek, sealed).
    """
    cek, nonce = os.urandom(CEK_BYTES), os.urandom(_NONCE_BYTES)
    return cek, nonce + AESGCM(cek).encrypt(nonce, zstd.compress(manifest_json, 9), _SEAL_LABEL)


def open_manifest(cek: bytes, sealed: bytes) -> bytes:
    """The manifest's JSON text.

    Raises:
        ContentError: E_KEY when the key does not fit, E_CHUNK when the content is not a frame within bounds.
    """
    return unpack_manifest(unseal_manifest(cek, sealed))


def unseal_manifest(cek: bytes, sealed: bytes) -> bytes:
    """The manifest, still packed: whoever holds the key need not parse what it opens.

    Raises:
        ContentError: E_KEY: the key does not fit.
    """
    try:
        return AESGCM(cek).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _SEAL_LABEL)
    except (InvalidTag, ValueError) as error:
        raise ContentError(ErrorCode.KEY, "sealed manifest: the content key does not open it") from error


def unpack_manifest(packed: bytes) -> bytes:
    """The manifest's JSON text.

    Raises:
        ContentError: E_CHUNK: not a frame within bounds.
    """
    return _decompress(packed, MAX_MANIFEST_BYTES, "sealed manifest", window_log=27)


def wrap_key(cek: bytes, recipient: X25519PublicKey, *, release: str, device: str) -> bytes:
    """Wrap a content key for one device and one release; 80 B.

    Args:
        release: sha256 hex of the sealed manifest.
        device: The device's id, or ``PACKAGE_RECIPIENT`` for the signer.
    """
    return _SUITE.encrypt(cek, recipient, info=_wrap_info(release, device))


def unwrap_key(wrapped: bytes, private: X25519PrivateKey, *, release: str, device: str) -> bytes:
    """The content key.

    Raises:
        ContentError: E_KEY: made for another device, release or key.
    """
    try:
        cek = _SUITE.decrypt(wrapped, private, info=_wrap_info(release, device))
    except (InvalidTag, ValueError) as error:
        raise ContentError(ErrorCode.KEY, f"key wrap: not made for {device} and this release") from error
    if len(cek) != CEK_BYTES:
        raise ContentError(ErrorCode.KEY, f"key wrap: {CEK_BYTES} B expected, {len(cek)} found")
    return cek


def _wrap_info(release: str, device: str) -> bytes:
    return f"flagship-cek-v1|{release}|{device}".encode()


def _open_body(ref: ChunkRef | DeltaRef, ciphertext: bytes) -> bytes:
    if len(ciphertext) != ref.body_length + TAG_BYTES:
        raise _bad(ref, f"{ref.body_length + TAG_BYTES} B expected, {len(ciphertext)} found")
    if hashlib.sha256(ciphertext).digest() != ref.cid:
        raise _bad(ref, "its hash is not its name")
    try:
        return AESGCM(ref.key).decrypt(_ZERO_NONCE, ciphertext, None)
    except InvalidTag as error:
        raise _bad(ref, "its tag does not fit its key") from error


def _decompress(
    data: bytes,
    limit: int,
    what: str,
    window_log: int = _WINDOW_LOG_MAX,
    dictionary: zstd.ZstdDict | None = None,
) -> bytes:
    # The module function decompress() has no bound; the object honours max_length.
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: window_log}
    decoder = zstd.ZstdDecompressor(zstd_dict=dictionary, options=options)
    try:
        plain = decoder.decompress(data, max_length=limit + 1)
    except zstd.ZstdError as error:
        raise ContentError(ErrorCode.CHUNK, f"{what}: not a zstd frame within bounds") from error
    if len(plain) > limit or not decoder.eof or decoder.unused_data:
        raise ContentError(ErrorCode.CHUNK, f"{what}: more than {limit} B, cut short, or followed by something")
    return plain


def _bad(ref: ChunkRef | DeltaRef, why: str) -> ContentError:
    return ContentError(ErrorCode.CHUNK, f"chunk {ref.cid.hex()[:16]}: {why}")
