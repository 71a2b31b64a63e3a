"""A fleet's home: where everything is, and the settings of ``config.toml`` with ``FLAGSHIP_*`` on top.

config.toml          settings, no secret
admin.token          0600, the key to the HTTP API
flagship.sqlite      the database          serve.lock   held by the one serve
ca/                  development CAs: {devices,services}-ca.{pem,key,crl}, claims-ca.{pem,key}
tls/                 broker, orch-delivery, orch-ingest, viewer: NAME.{pem,key}
signer/              timestamp.key, director.key, package.key (X25519), high-water.json, facts.json,
                     requests.log (.1, .2, ...), signer.lock: the signer's alone, which may be another process
trust/               published TUF metadata: N.root.json, N.targets.json, ... timestamp.json
publisher/           release keys, DK and TUF working copy: the orchestrator never reads it
chunks/              chunk store           incoming/    packages being imported
broker/              generated mosquitto configuration, its data and log
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from orchestrator.config_brokers import BrokerSettings, ChunkSettings, FurtherBroker, Port, Seconds
from orchestrator.errors import NotAllowedError, NotFoundError, UsageError
from protocol.enrolment import MAX_MIRRORS, HttpsUrl
from protocol.identifiers import IdText


class ApiSettings(BaseModel):
    """Where the HTTP API listens."""

    model_config = ConfigDict(extra="forbid")

    host: str = "127.0.0.1"
    port: Port = 8420


class MirrorSettings(BaseModel):
    """``/chunks/{cid}`` for devices, over TLS and nothing else. Off without a port.

    Attributes:
        certificate: NAME of ``tls/NAME.pem`` and its key; by the devices' CA, as the broker's is.
        connections: The most clients at once.
        advertised: Base addresses of mirrors that devices are told at enrolment, such as https://mirror.example/ota.
        advertised_ca: By whom their certificates are: the fleet's own CA, or those that the device's system trusts.
    """

    model_config = ConfigDict(extra="forbid")

    host: str = "127.0.0.1"
    port: Port | None = None
    certificate: IdText = "broker"
    connections: Annotated[int, Field(ge=1, le=10_000)] = 500
    advertised: Annotated[tuple[HttpsUrl, ...], Field(max_length=MAX_MIRRORS)] = ()
    advertised_ca: Literal["fleet", "system"] = "fleet"


class TimingSettings(BaseModel):
    """All times, so that tests and the demo shorten them."""

    model_config = ConfigDict(extra="forbid")

    tick_s: Seconds = 1.0
    lease_s: Annotated[float, Field(gt=0, le=7 * 86_400)] = 86_400
    activate_grant_s: Annotated[float, Field(gt=0, le=3600)] = 900
    timestamp_renew_s: Seconds = 86_400
    audit_head_s: Seconds = 3600  # how often the signer signs where the audit log ends
    ingest_batch_s: Seconds = 0.05
    status_interval_s: Seconds = 0.5
    silent_after_s: Seconds = 2_700  # three times the level interval of devices
    expel_wait_s: Seconds = 5.0  # how long a revoke waits for the broker before it answers "pending"
    read_back_s: Seconds = 5.0
    barrier_wait_s: Seconds = 5.0  # how long a halt waits for sends in flight before that broker's connection is cut
    publish_wait_s: Seconds = 60.0  # how long a publish waits for the other brokers once one has everything
    removals_kept_s: Seconds = 30 * 86_400  # how old a file a broker may come back with and still be cleared


class SignerSettings(BaseModel):
    """Where signing happens, and how fast.

    Attributes:
        socket: Of a ``flagship signer`` that runs by itself; "" signs inside ``serve``. A relative path begins at the
            home.
        deadline_s: The longest that one request may take.
        offers_per_minute: Offers that grant something; beyond it delivery waits.
        offers_burst: How many of them may come at once.
        offline_max_s: The longest that an order on a medium lasts, for devices without a link; 0 signs none.
        log_bytes: At which size the log of requests begins a new file.
        log_files: How many of these are kept.
    """

    model_config = ConfigDict(extra="forbid")

    socket: str = ""
    deadline_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    offers_per_minute: Annotated[float, Field(gt=0)] = 120_000
    offers_burst: Annotated[int, Field(ge=1)] = 20_000
    offline_max_s: Annotated[float, Field(ge=0, le=90 * 86_400)] = 30 * 86_400
    log_bytes: Annotated[int, Field(ge=4096)] = 64 * 2**20
    log_files: Annotated[int, Field(ge=1, le=1000)] = 10


class CertificateSettings(BaseModel):
    """What devices' certificates are like and who issues them.

    Attributes:
        life_s: From issue to expiry; devices renew at two thirds.
        issue_command: Program and arguments that issue in the built-in CA's place; empty: the built-in CA.
        issue_timeout_s: How long that program may take.
        renew_pause_s: Least time between two different renewals of one device.
        automatic_return: Whether a device whose certificate expired comes back on its former key alone.
        pending_retry_s: When a device that waits for a person is told to ask again.
    """

    model_config = ConfigDict(extra="forbid")

    life_s: Annotated[float, Field(ge=1, le=10 * 365 * 86_400)] = 90 * 86_400
    issue_command: list[str] = []
    issue_timeout_s: Annotated[float, Field(gt=0, le=300)] = 30
    renew_pause_s: Annotated[float, Field(ge=0)] = 60
    automatic_return: bool = True
    pending_retry_s: Annotated[float, Field(gt=0, le=86_400)] = 60


class Settings(BaseSettings):
    """``config.toml``, overridden by ``FLAGSHIP_<SECTION>__<NAME>``."""

    model_config = SettingsConfigDict(
        env_prefix="FLAGSHIP_", env_nested_delimiter="__", extra="forbid", validate_default=True
    )

    fleet: IdText = "fleet"
    product: IdText = "device"
    api: ApiSettings = ApiSettings()
    mirror: MirrorSettings = MirrorSettings()
    broker: BrokerSettings = BrokerSettings()
    brokers: Annotated[list[FurtherBroker], Field(max_length=15)] = []
    chunks: ChunkSettings = ChunkSettings()
    timing: TimingSettings = TimingSettings()
    signer: SignerSettings = SignerSettings()
    certificates: CertificateSettings = CertificateSettings()

    @property
    def all_brokers(self) -> list[BrokerSettings]:
        """In the order in which devices try them."""
        return [self.broker, *self.brokers]

    def for_broker(self, broker: BrokerSettings) -> "Settings":
        """The settings as one of the brokers sees them: it is the only one."""
        return self.model_copy(update={"broker": broker, "brokers": []})

    @model_validator(mode="after")
    def _names_once(self) -> "Settings":
        names = [broker.name for broker in self.all_brokers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two brokers are named {twice[0]}; give each a name of its own")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, which is passed in as init values."""
        return env_settings, init_settings


class Home:
    """Paths inside a fleet's home."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.admin_token = path / "admin.token"
        self.database = path / "flagship.sqlite"
        self.serve_lock = path / "serve.lock"
        self.ca = path / "ca"
        self.tls = path / "tls"
        self.signer = path / "signer"
        self.trust = path / "trust"
        self.publisher = path / "publisher"
        self.chunks = path / "chunks"
        self.incoming = path / "incoming"
        self.broker = path / "broker"

    def signer_socket(self, settings: Settings) -> Path | None:
        """Where a ``flagship signer`` is asked; None when ``serve`` signs by itself."""
        return self.path / settings.signer.socket if settings.signer.socket else None

    def certificate(self, name: str) -> tuple[Path, Path]:
        """(certificate, key) of a service under ``tls/``."""
        return self.tls / f"{name}.pem", self.tls / f"{name}.key"

    @property
    def devices_ca(self) -> Path:
        """The CA of devices and of the broker's own certificate."""
        return self.ca / "devices-ca.pem"

    @property
    def claims_ca(self) -> Path:
        """The CA of claim certificates, which open nothing but the way to a certificate."""
        return self.ca / "claims-ca.pem"

    @property
    def services_ca(self) -> Path:
        """The CA of the orchestrator's and viewers' client certificates."""
        return self.ca / "services-ca.pem"

    @property
    def devices_crl(self) -> Path:
        """Certificates of devices that are revoked; a broker of one's own needs a copy."""
        return self.ca / "devices-ca.crl"

    @property
    def services_crl(self) -> Path:
        """Certificates of services and viewers that are revoked."""
        return self.ca / "services-ca.crl"

    def load(self) -> Settings:
        """Read the settings.

        Raises:
            NotFoundError: There is no home here.
            UsageError: ``config.toml`` has a mistake; names the place.
        """
        if not self.config.is_file():
            raise NotFoundError(
                f"{self.path}: no fleet's home here (config.toml is missing); "
                "make one with 'flagship init DIR' or name it with --home or FLAGSHIP_HOME"
            )
        try:
            values: dict[str, Any] = tomllib.loads(self.config.read_text())
            return Settings(**values)
        except OSError as error:
            raise NotAllowedError(f"{self.config}: cannot be read: {error.strerror or error}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{self.config}: not TOML: {error}; mend it") from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise UsageError(f"{self.config}: {place}: {first['msg']}; mend it") from error
