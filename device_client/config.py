"""A device's home: where everything is, and the settings of ``device.toml``.

device.toml                settings, no secret
identity -> identities/N   device.key, content.key (0600), certificate.pem, ca.pem, root.json, fleet.json
identities/                the present identity and, during a renewal, the next one
claim/                     the claim folder that the device came with, to come back after its certificate expired
connections/               ways to the fleet that were signed since enrolment: current -> DIGEST, next -> DIGEST
trust/                     verified TUF metadata
state/                     journal.json, floors-a.json, floors-b.json, session, installer.json, lock
staging/                   what is being fetched
releases/<version>-<digest12>/     current -> releases/...
mender/                    what an update module is given; there while an update is open
run/                       agent.sock, inhibit.sock, inhibit.d/           approvals/    drop files
"""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError

from device_client.config_gates import GatesSection
from device_client.config_installers import InstallerSection
from device_client.config_network import MediaSection, NetworkSection, Seconds, Section, Sources
from device_client.config_windows import ZoneName
from device_client.durable import make_directory, read_capped, switch_link, write_durably
from device_client.errors import NotFoundError, UsageError
from protocol.chunks import MAX_CIPHERTEXT_BYTES, MAX_WINDOW
from protocol.identifiers import IdText, SerialText
from protocol.manifest import Policy

MAX_SETTINGS_BYTES = 65_536


class DeviceSection(Section):
    """Who this device is.

    Attributes:
        serial: What it was made as; needed to come back under a claim.
        component: The part of it that the installer updates.
        timezone: IANA name of the zone in which the wall times of windows count, its own and those of policies. Without
            it, the zone of this machine: the one that ``/etc/localtime`` links to, else UTC.
    """

    id: IdText
    serial: SerialText | None = None
    product: IdText
    hardware: IdText
    component: IdText = "app"
    labels: dict[IdText, Annotated[str, StringConstraints(max_length=64)]] = {}
    timezone: ZoneName | None = None


class BrokerSection(Section):
    """How a connection is kept; the brokers' addresses come with enrolment."""

    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 30
    timeout_s: Seconds = 10.0
    protocol: Literal["5", "3.1.1"] = "5"


class TimingSection(Section):
    """All times, so that tests and the demo shorten them.

    Attributes:
        readiness_retry_s: Base of the back-off with which what was not heard is said again.
        readiness_level_s: The longest time between two reports of the same level.
        verify_timeout_s: How long a healthy new version waits for the orchestrator's answer.
        network_deadline_s: How long it tries to reach a broker before it rolls back.
        gate_interval_s: How often closed gates are judged again.
        refusal_interval_s: The least time between two reports of what was refused.
        chunk_timeout_s: Silence after which chunks that were asked for count as lost.
        request_timeout_s: The longest that a mirror may take for one chunk, however steadily it drips.
        renew_at_ratio: Share of a certificate's life after which a new one is asked for.
        former_key_s: How long a former content key is kept at least; longer while an update is open.
        connection_retry_s: How often a new way to the fleet is tried while the old one works.
    """

    readiness_retry_s: Seconds = 5
    readiness_level_s: Seconds = 900
    verify_timeout_s: Seconds = 21_600
    network_deadline_s: Seconds = 900
    gate_interval_s: Seconds = 5
    progress_interval_s: Seconds = 1
    refusal_interval_s: Seconds = 60
    chunk_timeout_s: Seconds = 5
    request_timeout_s: Seconds = 120
    connect_backoff_s: Seconds = 1
    connect_backoff_cap_s: Seconds = 60
    renew_at_ratio: Annotated[float, Field(gt=0, lt=1)] = 2 / 3
    former_key_s: Seconds = 3600
    connection_retry_s: Seconds = 900


class DownloadSection(Section):
    """How chunks are asked for.

    Attributes:
        window: Chunks in the first windows; fewer after losses, more while all arrives.
        max_window: The most in one window; brokers drop larger bursts silently.
        window_bytes: The most bytes in one window; as many are asked for as the link's bandwidth and delay need.
        qos: Of subscriptions to chunks; 0 suits brokers that are slow with 1, as ``flagship broker check`` finds out.
        rate_limit_bytes_s: Average transfer rate; 0 means no limit.
        min_rate_bytes_s: A broker whose chunks come slower is left for another source or broker (E_SLOW); 0: never.
        slow_window_s: What that is averaged over, of time in which chunks were waited for.
        return_after_s: How long a source that was left is not asked, first; longer each time that it fails again.
        sources: Where chunks come from, the preferred first; none: the broker, then the mirrors that the fleet signed.
    """

    window: Annotated[int, Field(ge=1, le=MAX_WINDOW)] = 16
    max_window: Annotated[int, Field(ge=1, le=MAX_WINDOW)] = MAX_WINDOW
    window_bytes: Annotated[int, Field(ge=MAX_CIPHERTEXT_BYTES, le=16 * 2**20)] = 4 * 2**20
    qos: Literal[0, 1] = 1
    rate_limit_bytes_s: Annotated[int, Field(ge=0)] = 0
    min_rate_bytes_s: Annotated[int, Field(ge=0)] = 0
    slow_window_s: Seconds = 60
    return_after_s: Seconds = 60
    sources: Sources = ()


class DeviceSettings(Section):
    """``device.toml``."""

    device: DeviceSection
    broker: BrokerSection = BrokerSection()
    timing: TimingSection = TimingSection()
    download: DownloadSection = DownloadSection()
    network: NetworkSection = NetworkSection()
    gates: GatesSection = GatesSection()
    installer: InstallerSection = InstallerSection()
    media: MediaSection = MediaSection()

    def policy(self) -> Policy:
        """The device's own demands in the words that announcements and manifests use."""
        return Policy(
            min_battery_percent=self.gates.min_battery_percent,
            require_approval=self.gates.require_approval,
            allow_in_use=self.gates.allow_in_use,
            require_way_back=self.gates.require_way_back,
            min_interval_s=self.installer.min_interval_s,
        )


class DeviceHome:
    """Paths inside a device's home."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "device.toml"
        self.identity = path / "identity"
        self.identities = path / "identities"
        self.claim = path / "claim"
        self.connections = path / "connections"
        self.trust = path / "trust"
        self.state = path / "state"
        self.journal = self.state / "journal.json"
        self.session = self.state / "session"
        self.metered = self.state / "metered.json"
        self.lock = self.state / "lock"
        self.installer = self.state / "installer.json"
        self.staging = path / "staging"
        self.releases = path / "releases"
        self.current = path / "current"
        self.mender = path / "mender"
        self.run = path / "run"
        self.socket = self.run / "agent.sock"
        self.inhibit_socket = self.run / "inhibit.sock"
        self.inhibitors = self.run / "inhibit.d"
        self.approvals = path / "approvals"

    def create(self) -> None:
        """Make the directories that are missing; keys and state are for this user only."""
        for directory in (self.path, self.releases, self.run, self.inhibitors, self.approvals):
            make_directory(directory)
        for directory in (self.identities, self.connections, self.trust, self.state, self.staging):
            make_directory(directory, 0o700)
        if not self.identity.exists():
            make_directory(self.identities / "1", 0o700)
            switch_link(self.identity, "identities/1")


def load(path: Path) -> tuple[DeviceHome, DeviceSettings]:
    """Read ``device.toml``, named itself or by the home it lies in.

    Raises:
        NotFoundError: There is no such file.
        UsageError: It has a mistake; names the place.
    """
    file = path / "device.toml" if path.is_dir() else path
    if not file.is_file():
        raise NotFoundError(f"{file}: no device here; make one with 'flagship-device enrol'")
    try:
        values: dict[str, Any] = tomllib.loads(read_capped(file, MAX_SETTINGS_BYTES).decode())
        return DeviceHome(file.parent), DeviceSettings.model_validate(values)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: not TOML: {error}; mend it") from error
    except ValidationError as error:
        raise UsageError(f"{file}: {first_mistake(error)}; mend it") from error


def settings_from(values: dict[str, Any], what: str) -> DeviceSettings:
    """Settings out of a command's words; ``what`` names the command.

    Raises:
        UsageError: A value is wrong; names it.
    """
    try:
        return DeviceSettings.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{what}: {first_mistake(error)}") from error


def write(home: DeviceHome, settings: DeviceSettings) -> None:
    """Write ``device.toml``: the whole of [device], and of the other sections what differs from the defaults."""
    values = settings.model_dump(mode="json", exclude_defaults=True)
    values["device"] = settings.device.model_dump(mode="json", exclude_none=True)
    lines = ["# Settings of this device. What is not named here has its default."]
    for section, entries in values.items():
        tables = {key: entry for key, entry in entries.items() if isinstance(entry, dict)}
        lines += ["", f"[{section}]"]
        lines += [f"{key} = {_toml(entry)}" for key, entry in entries.items() if key not in tables]
        for key, table in tables.items():
            if table:
                lines += ["", f"[{section}.{key}]", *(f"{_toml(k)} = {_toml(v)}" for k, v in table.items())]
    write_durably(home.config, ("\n".join(lines) + "\n").encode(), 0o644)


def first_mistake(error: ValidationError) -> str:
    """Where a value is wrong and why, in one clause and without the value."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _toml(value: object) -> str:
    # JSON's strings, numbers, booleans and arrays of them are TOML's; only DEL is escaped by TOML alone.
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
