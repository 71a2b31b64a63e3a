"""``flagship device claim``: create, list, revoke."""

import csv
import io
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from orchestrator.cli.client import ApiClient
from orchestrator.cli.output import HERE, Format, FormatOption, HomeOption, show_rows
from orchestrator.cli.words import read_duration, read_id, usage
from orchestrator.errors import ConflictError, NotFoundError, OperationError, UsageError
from orchestrator.private_files import write_private
from protocol.enrolment import ClaimFolder
from protocol.identifiers import check_claim, check_id, check_serial

MAX_LIST_BYTES = 32 << 20
MAX_LISTED = 100_000
PREFIX = "claim."
_COLUMNS = ("name", "state", "approval", "listed", "admitted", "any_product", "any_hardware", "per_minute", "expires")

app = typer.Typer(help="Certificates under which new devices ask for their own.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="A name for the batch or the line.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The claim folder; must not exist.")],
    serials: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV: serial, device, product, hardware, any label.KEY.")
    ] = None,
    any_serial: Annotated[bool, typer.Option("--any", help="Serials that are not listed may come too.")] = False,
    product: Annotated[str, typer.Option(help="Of all that are not told otherwise.")] = "",
    hardware: Annotated[str, typer.Option(help="Of all that are not told otherwise.")] = "",
    approval: Annotated[str, typer.Option(help="auto or manual (auto for listed serials, manual with --any).")] = "",
    per_minute: Annotated[int, typer.Option(help="Requests that are looked at.")] = 60,
    expires: Annotated[str, typer.Option(help="How long the claim is good for, such as 90d.")] = "90d",
    home: HomeOption = HERE,
) -> None:
    """Make a claim and its folder, which goes onto devices that have no certificate yet."""
    if approval not in ("", "auto", "manual"):
        raise UsageError(f"--approval {approval[:40]!r}: expected auto or manual")
    if any_serial and not (product and hardware):
        raise UsageError("--any: needs --product and --hardware")
    if not any_serial and serials is None:
        raise UsageError("claim: expected --serials FILE or --any")
    wanted = claim_name(name)
    listed = _read_serials(serials, product, hardware) if serials else []
    key, csr = _key_and_request(wanted)
    body = {
        "name": wanted,
        "csr": csr,
        "devices": listed,
        "any_product": read_id(product, "--product") if any_serial else None,
        "any_hardware": read_id(hardware, "--hardware") if any_serial else None,
        "automatic": (approval or ("manual" if any_serial else "auto")) == "auto",
        "per_minute": per_minute,
        "life_s": read_duration(expires, "--expires"),
    }
    with _Draft(output) as draft:
        made = ApiClient(home).post("/claims", body)
        draft.fill(key, made)
    typer.echo(f"{output}: claim {wanted}, {len(listed)} serials listed; claim.key in it is a secret of that batch")


@app.command("list")
def list_claims(output: FormatOption = Format.TABLE, home: HomeOption = HERE) -> None:
    """List claims."""
    show_rows(_COLUMNS, ApiClient(home).pages("/claims"), output)


@app.command()
def revoke(name: Annotated[str, typer.Argument(help="The claim's name.")], home: HomeOption = HERE) -> None:
    """Answer no request under a claim any more; devices that it brought stay."""
    wanted = claim_name(name)
    ApiClient(home).post(f"/claims/{wanted}/revoke", {})
    typer.echo(f"{wanted}: revoked")


def claim_name(text: str) -> str:
    """The CN of a claim that a person names with or without its prefix; raises UsageError."""
    with usage():
        return check_claim(PREFIX + text.removeprefix(PREFIX))


def _read_serials(file: Path, product: str, hardware: str) -> list[dict[str, Any]]:
    try:
        raw = file.read_bytes() if file.stat().st_size <= MAX_LIST_BYTES else None
    except FileNotFoundError as error:
        raise NotFoundError(f"{file}: no such list of serials") from error
    except OSError as error:
        raise OperationError(f"{file}: cannot be read: {error.strerror}") from error
    if raw is None:
        raise UsageError(f"{file}: expected at most {MAX_LIST_BYTES} B, found a larger file")
    try:
        rows = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig")), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{file}: not CSV with a first line that names the columns ({error})") from error
    if not rows or len(rows) > MAX_LISTED:
        raise UsageError(f"{file}: expected 1 to {MAX_LISTED} serials below a line that names the columns")
    given = {"product": product, "hardware": hardware}
    return [_listed(f"{file}, line {number}", row, given) for number, row in enumerate(rows, 2)]


def _listed(where: str, row: Mapping[str | None, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """One line: ``device`` is the serial where it is not said."""
    values = {str(key).strip(): str(value or "").strip() for key, value in row.items() if key is not None}
    labels = {key.removeprefix("label."): value for key, value in values.items() if key.startswith("label.") and value}
    strange = [key for key in values if key not in ("serial", "device", "product", "hardware") and key[:6] != "label."]
    if None in row or strange:
        raise UsageError(f"{where}: expected serial, device, product, hardware, label.KEY, found {strange or 'more'}")
    with usage(where):
        serial = check_serial(values.get("serial", ""))
        return {
            "serial": serial,
            "device": check_id(values.get("device") or serial, "device id"),
            "product": check_id(values.get("product") or given["product"], "product"),
            "hardware": check_id(values.get("hardware") or given["hardware"], "hardware"),
            "labels": {check_id(key, "label"): value for key, value in labels.items()},
        }


def _key_and_request(name: str) -> tuple[bytes, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, csr.public_bytes(Encoding.PEM).decode()


class _Draft:
    """The folder, made before anything is asked: a claim whose key cannot be kept is of no use."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._draft = place.with_name(f".{place.name}.new")

    def __enter__(self) -> Self:
        if self._place.exists():
            raise ConflictError(f"{self._place}: is there already; name a new folder")
        try:
            shutil.rmtree(self._draft, ignore_errors=True)
            self._draft.mkdir(mode=0o700)
        except OSError as error:
            raise OperationError(f"{self._place}: cannot be made: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._draft, ignore_errors=True)

    def fill(self, key: bytes, made: Mapping[str, Any]) -> None:
        """Write everything and put it in its place."""
        folder = ClaimFolder.model_validate(made["folder"])
        files = {
            "claim.json": folder.model_dump_json(indent=1) + "\n",
            "claim.pem": made["certificate"],
            "ca.pem": made["ca"],
            "root.json": made["root"],
        }
        try:
            write_private(self._draft / "claim.key", key)
            for name, text in files.items():
                (self._draft / name).write_text(text)
            self._draft.rename(self._place)
            descriptor = os.open(self._place.parent, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        except OSError as error:
            raise OperationError(
                f"{self._place}: cannot be written: {error.strerror}; revoke claim {folder.claim} and make another"
            ) from error
