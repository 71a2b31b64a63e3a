"""Write the golden files that are missing: ``python -m tests.golden.regenerate``.

What is there stays: it is what devices in the field speak. A changed format gets a new folder, not new bytes.
"""

import hashlib
import json
import tempfile
from pathlib import Path

from orchestrator.package import PackageHeader
from orchestrator.package_writer import PackageWriter
from protocol.directives import ANNOUNCEMENT_TYPE, OFFER_TYPE
from protocol.encryption import PACKAGE_RECIPIENT, seal_manifest, wrap_key
from protocol.envelopes import encode, sign
from protocol.trust.bundle import pack_bundle
from tests.golden import samples


def signed_files() -> dict[str, bytes]:
    """Whatever the same code makes of the same values every time: payloads, envelopes, chunk, manifest."""
    files = {f"{name}.json": encode(message) for name, message in samples.MESSAGES.items()}
    for name, payload_type in (("announcement", ANNOUNCEMENT_TYPE), ("offer", OFFER_TYPE)):
        files[f"{name}.dsse"] = sign(files[f"{name}.json"], payload_type, samples.DIRECTOR)
    files["manifest.json"] = samples.MANIFEST.to_json()
    files["manifest-deltas.json"] = samples.DELTA_MANIFEST.to_json()
    files["chunk.bin"] = samples.CIPHERTEXT
    files["delta.bin"] = samples.DELTA_CIPHERTEXT
    return files


def sealed_files() -> dict[str, bytes]:
    """What has randomness in it: made once, and only opened from then on."""
    cek, sealed = seal_manifest(samples.MANIFEST.to_json())
    digest = hashlib.sha256(sealed).hexdigest()
    public = samples.CONTENT_KEY.public_key()
    wrap = wrap_key(cek, public, release=digest, device="dev1")
    package_wrap = wrap_key(cek, public, release=digest, device=PACKAGE_RECIPIENT)
    bundle = {"1.root.json": b"{}", "1.targets.json": b'{"signed":{}}'}
    return {
        "manifest.sealed": sealed,
        "key-wrap.bin": wrap,
        "trust-bundle.bin": pack_bundle(bundle),
        "release.package": package(sealed, package_wrap, bundle),
    }


def package(sealed: bytes, cek: bytes, trust: dict[str, bytes]) -> bytes:
    """A package with one piece and one chunk."""
    digest = hashlib.sha256(sealed).hexdigest()
    header = PackageHeader(fleet="north", product="gateway", version="1.1.0", manifest_sha256=digest)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "release.package"
        writer = PackageWriter(path)
        writer.add("release.json", json.dumps(header.model_dump(mode="json"), separators=(",", ":")).encode())
        for name, data in trust.items():
            writer.add(f"trust/{name}", data)
        writer.add("cek", cek)
        writer.add(f"piece/{digest}", sealed)
        writer.add(f"chunk/{samples.CID.hex()}", samples.CIPHERTEXT)
        writer.close()
        return path.read_bytes()


def main() -> None:
    """Write what is missing and say so."""
    samples.FOLDER.mkdir(exist_ok=True)
    missing_sealed = not (samples.FOLDER / "release.package").exists()
    for name, data in {**signed_files(), **(sealed_files() if missing_sealed else {})}.items():
        path = samples.FOLDER / name
        if path.exists():
            print(f"{name}: kept")
        else:
            path.write_bytes(data)
            print(f"{name}: written, {len(data)} B")


if __name__ == "__main__":
    main()
