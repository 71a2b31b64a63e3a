"""``flagship trust``: the key ceremony. Holds keys and works offline; only ``publish`` and ``renew`` talk to serve."""

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import trust_connection
from orchestrator.cli.output import HERE, Format, FormatOption, HomeOption, show_done, show_json, show_rows
from orchestrator.cli.passwords import PasswordFd, PasswordFile, ask_from, ask_new
from orchestrator.cli.trust_words import read_change, read_days
from orchestrator.errors import NotAllowedError, UnreachableError, UsageError, WaitingError
from orchestrator.publisher import proposal_file, steps
from orchestrator.publisher.holders import Holder, write_public_key
from orchestrator.publisher.key_uris import open_signer
from orchestrator.publisher.keys import create_signing_key
from orchestrator.publisher.proposals import Proposal, merge, sign_proposal
from orchestrator.publisher.trust_diff import describe
from orchestrator.publisher.working_copy import current_files
from orchestrator.publisher.workspace import Workspace
from protocol.clock import rfc3339

if TYPE_CHECKING:
    from orchestrator.cli.client import ApiClient

PUBLISHER = "publisher"
TIMESTAMP = "timestamp.json"
app = typer.Typer(
    name="trust",
    help="Keys of roles: propose, sign, publish, renew, show.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
trust_connection.add_to(app)

KeysOption = Annotated[Path | None, typer.Option("--keys", help="Folder of the release keys; by default the home's.")]
StolenOption = Annotated[
    bool, typer.Option("--stolen", help="A director key leaves at once, though devices hold orders under it.")
]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Do not talk to serve.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask; for scripts that showed the changes before.")]
ROLE_KEY = "ROLE=KEY"


@app.command()
def propose(
    output: Annotated[Path, typer.Option("-o", "--output", help="The proposal to write.")],
    add: Annotated[list[str] | None, typer.Option(help="ROLE=PUBLIC_KEY_FILE; may be repeated.")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="ROLE=HOLDER or ROLE=KEY_ID; may be repeated.")] = None,
    threshold: Annotated[list[str] | None, typer.Option(help="ROLE=NUMBER; may be repeated.")] = None,
    renew: Annotated[list[str] | None, typer.Option(help="ROLE or ROLE=DAYS; may be repeated.")] = None,
    product: Annotated[list[str] | None, typer.Option(help="A new product; its keys come with --add.")] = None,
    unlist: Annotated[list[str] | None, typer.Option(help="PRODUCT/VERSION that nobody shall install.")] = None,
    reason: Annotated[str, typer.Option(help="Why; the holders read it.")] = "",
    stolen: StolenOption = False,
    offline: OfflineOption = False,
    keys: KeysOption = None,
    home: HomeOption = HERE,
) -> None:
    """Write a proposal and show what it changes; nothing changes yet."""
    workspace = Workspace(keys or home / PUBLISHER)
    change, news = read_change(workspace, add, remove, threshold, renew, product, unlist)
    proposal = steps.propose(workspace, change, news, reason, datetime.now(UTC))
    if not stolen and not offline:
        _check_directors(home, proposal)
    proposal_file.save(output, proposal, new=True)
    _say(*describe(proposal), f"{output}: to be signed with 'flagship trust sign'")


@app.command()
def sign(
    proposal: Annotated[Path, typer.Argument(help="What 'flagship trust propose' wrote.")],
    key: Annotated[list[str] | None, typer.Option(help="File or URI of your private key; may be repeated.")] = None,
    merge_with: Annotated[
        list[Path] | None, typer.Option("--merge", help="A copy that somebody else signed; may be repeated.")
    ] = None,
    keyid: Annotated[str, typer.Option(help="Beginning of the key's id, for a KMS.")] = "",
    yes: YesOption = False,
    password_file: PasswordFile = None,
    password_fd: PasswordFd = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Where it goes; by default in place.")] = None,
) -> None:
    """Show what is signed, ask, and add your signatures. Needs this file and your key, nothing else."""
    if not key and not merge_with:
        raise UsageError("trust sign: expected --key or --merge; see 'flagship trust sign --help'")
    found = merge([proposal_file.load(file) for file in (proposal, *(merge_with or ()))])
    _say(*describe(found))
    ask = ask_from(password_file, password_fd)
    if key:
        _confirm(found, yes=yes)
    for uri in key or ():
        signer = open_signer(uri, ask, found.wanted(), keyid)
        found = sign_proposal(found, signer, uri.partition("?")[0])
        _say(f"signed with {found.holders.title(signer.public_key.keyid)}")
    proposal_file.save(output or proposal, found, new=output is not None)
    missing = found.missing()
    _say(*(f"still needed: {sentence}" for sentence in missing))
    if not missing:
        _say(f"{output or proposal}: complete; hand it to 'flagship trust publish'")


@app.command()
def publish(
    proposals: Annotated[
        list[Path] | None, typer.Argument(help="A proposal that was signed, or several copies of it.")
    ] = None,
    stolen: StolenOption = False,
    offline: OfflineOption = False,
    keys: KeysOption = None,
    home: HomeOption = HERE,
    output: FormatOption = Format.TABLE,
) -> None:
    """Put a proposal into force: the working copy, then serve, then devices.

    Without a proposal, hand the working copy to serve as it is.
    """
    workspace = Workspace(keys or home / PUBLISHER)
    found = merge([proposal_file.load(file) for file in proposals]) if proposals else None
    _publish(workspace, found, home, stolen=stolen, offline=offline, output=output)


@app.command("renew")
def renew_command(
    proposal: Annotated[
        Path, typer.Option("-o", "--proposal", help="Where a proposal goes when other holders must sign too.")
    ] = Path("renewal.proposal"),
    within: Annotated[str, typer.Option(help="Days: what runs out within them is renewed.")] = "30",
    offline: OfflineOption = False,
    keys: KeysOption = None,
    password_file: PasswordFile = None,
    password_fd: PasswordFd = None,
    home: HomeOption = HERE,
) -> None:
    """Sign again what runs out, with the keys at hand; exit code 7 when others must sign too."""
    workspace = Workspace(keys or home / PUBLISHER, ask_from(password_file, password_fd))
    renewal = steps.renew(workspace, read_days(within, "--within"), datetime.now(UTC))
    if renewal is None:
        _say(f"nothing runs out within {within} days; see 'flagship trust show'")
        return
    _say(*describe(renewal))
    missing = renewal.missing()
    if missing:
        proposal_file.save(proposal, renewal, new=True)
        raise WaitingError(f"{proposal}: {'; '.join(missing)}; sign it with 'flagship trust sign'")
    _publish(workspace, renewal, home, stolen=False, offline=offline, output=Format.TABLE)


@app.command()
def show(
    keys: KeysOption = None,
    output: FormatOption = Format.TABLE,
    home: HomeOption = HERE,
) -> None:
    """Show roles, holders, thresholds, expiry, and what is due when. Reads files only."""
    workspace = Workspace(keys or home / PUBLISHER)
    timestamp = home / "trust" / TIMESTAMP
    rows = steps.show(workspace, timestamp.read_bytes() if timestamp.is_file() else None, datetime.now(UTC))
    if output is Format.JSON:
        times = ("expires", "due")
        show_json([{**asdict(r), **{t: _time(getattr(r, t)) for t in times}} for r in rows])
        return
    show_rows(("role", "version", "keys", "holders", "expires", "due", "state"), steps.key_rows(rows), output)


@app.command("key")
def make_key(
    file: Annotated[
        Path, typer.Argument(help="The private key to make; or FILE.pub of a key that exists, with --uri.")
    ],
    holder: Annotated[str, typer.Option(help="Whose key it is; by default the file's name.")] = "",
    uri: Annotated[str, typer.Option(help="Read the public half of this key instead of making one.")] = "",
    plain: Annotated[bool, typer.Option("--plain", help="Without a password; for keys of the signer.")] = False,
    password_file: PasswordFile = None,
    password_fd: PasswordFd = None,
) -> None:
    """Make a private key and, beside it, the public half that is handed over for 'trust propose --add'."""
    if uri:
        signer, public = open_signer(uri, ask_from(password_file, password_fd), {}), file
        place = uri
    else:
        public = file.with_suffix(".pub")
        if public.exists():
            raise UsageError(f"{public}: is there already; name another file")
        password = "" if plain else ask_new(f"password of {file}", password_file, password_fd)
        signer, place = create_signing_key(file, password), "" if plain else str(file.absolute())
    key = signer.public_key
    write_public_key(public, key, Holder(holder=holder or file.stem, uri=place))
    _say(f"{public}: {key.scheme} key {key.keyid[:12]} of {holder or file.stem}")


def _publish(
    workspace: Workspace, proposal: Proposal | None, home: Path, *, stolen: bool, offline: bool, output: Format
) -> None:
    files = workspace.load_metadata()
    if proposal is not None:
        steps.check_signed(workspace, proposal)
        files |= proposal.signed_files()
    body = {name: data.decode() for name, data in current_files(files).items()}
    if not offline:  # what serve would refuse must not stand in the working copy
        _client(home).post("/trust", {"files": body, "stolen": stolen, "check_only": True})
    if proposal is not None:
        steps.publish(workspace, [proposal])
        if output is not Format.JSON:
            _say(f"published proposal {proposal.id} in {workspace.directory}")
    if offline:
        _say("not handed to serve: run 'flagship trust publish' where it is reached, or publish a release")
        return
    answer = _client(home).post("/trust", {"files": body, "stolen": stolen})
    roles = ", ".join(f"{role} {version}" for role, version in answer["versions"].items())
    show_done(f"serve has {roles}; devices are being told", answer, output)


def _check_directors(home: Path, proposal: Proposal) -> None:
    """A director key that leaves must not be one that devices hold orders of.

    Raises:
        ConflictError: It is, with how many.
    """
    before, after = proposal.before(), proposal.after()
    leaving = {
        keyid
        for role in before.roles()
        if role.startswith("director-")
        for keyid in before.keys(role).keys.keys() - after.keys(role).keys.keys()
    }
    if not leaving:
        return
    try:
        _client(home).post("/trust/leaving", {"keyids": sorted(leaving)})
    except UnreachableError as error:
        raise UnreachableError(
            f"{error}; only serve knows whether orders under a director key are out: "
            "ask again with --offline, then 'flagship trust publish' asks, or with --stolen"
        ) from error


def _confirm(proposal: Proposal, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise NotAllowedError(
            "trust sign: read the changes above, then sign with --yes; there is no terminal to ask at"
        )
    answer = typer.prompt(f"sign this? type the proposal's id ({proposal.id})", default="", show_default=False)
    if answer.strip() != proposal.id:
        raise NotAllowedError("trust sign: not confirmed; nothing was signed")


def _client(home: Path) -> "ApiClient":
    # Imported here: a holder's machine has neither httpx nor pydantic-settings.
    from orchestrator.cli.client import ApiClient

    return ApiClient(home)


def _time(instant: Any) -> str | None:  # noqa: ANN401 - a datetime or nothing
    return None if instant is None else rfc3339(instant)


def _say(*lines: str) -> None:
    for line in lines:
        # Names and reasons are other people's words.
        typer.echo("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line))
