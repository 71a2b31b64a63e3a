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

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from orchestrator.errors import NotAllowedError, NotFoundError, UsageError
from protocol.identifiers import IdText

Seconds = Annotated[float, Field(gt=0)]
Port = Annotated[int, Field(gt=0, lt=65536)]


class ApiSettings(BaseModel):
    """Where the HTTP API listens."""

    model_config = ConfigDict(extra="forbid")

    host: str = "127.0.0.1"
    port: Port = 8420


class BrokerSettings(BaseModel):
    """One broker. Managed: serve starts mosquitto itself.

    Attributes:
        max_retained_bytes: Of chunks that may stand there.
        beyond_budget: What becomes of a release that does not fit: refused, or published without its chunks, which
            devices then take from mirrors.
        repair_bytes_s: At which rate lost and wanted chunks are published again, and cleared ones brought back.
        audit_bytes_s: At which rate the audit reads chunks back.
    """

    model_config = ConfigDict(extra="forbid")

    name: IdText = "main"
    managed: bool = True
    host: str = "127.0.0.1"
    device_port: Port = 8883
    service_port: Port = 8884
    enrol_port: Port | None = None  # for devices that come with a claim certificate; None: no such listener
    advertised_host: str = ""  # what devices are told; "" means host
    max_retained_bytes: Annotated[int, Field(gt=0)] = 8 * 2**30
    beyond_budget: Literal["refuse", "mirrors-only"] = "refuse"
    repair_bytes_s: Annotated[float, Field(gt=0)] = 32 * 2**20
    audit_bytes_s: Annotated[float, Field(gt=0)] = 2**20


class ChunkSettings(BaseModel):
    """How long chunks stand on brokers, how often they are looked at, and what devices may ask for.

    Attributes:
        kept_s: After publishing, for a release that is not rolled out.
        grace_s: After the last rollout of a release ended.
        audit_s: From one audit of everything to the next.
        want_interval_s: The least time between two publishes of one chunk that devices want.
        wants_per_device: Chunks that one device may want at once; as many come back in ``want_period_s``.
    """

    model_config = ConfigDict(extra="forbid")

    kept_s: Seconds = 30 * 86_400
    grace_s: Seconds = 7 * 86_400
    audit_s: Seconds = 86_400
    want_interval_s: Seconds = 5.0
    wants_per_device: Annotated[int, Field(ge=1, le=100_000)] = 64
    want_period_s: Seconds = 10.0


class TimingSettings(BaseModel):
    """All times, so that tests and the demo shorten them."""

    model_config = ConfigDict(extra="forbid")

    tick_s: Seconds = 1.0
    lease_s: Annotated[float, Field(gt=0, le=7 * 86_400)] = 86_400
    activate_grant_s: Annotated[float, Field(gt=0, le=3600)] = 900
    timestamp_renew_s: Seconds = 86_400
    ingest_batch_s: Seconds = 0.05
    status_interval_s: Seconds = 0.5
    silent_after_s: Seconds = 2_700  # three times the level interval of devices
    expel_wait_s: Seconds = 5.0  # how long a revoke waits for the broker before it answers "pending"
    read_back_s: Seconds = 5.0


class SignerSettings(BaseModel):
    """Where signing happens, and how fast.

    Attributes:
        socket: Of a ``flagship signer`` that runs by itself; "" signs inside ``serve``. A relative path begins at the
            home.
        deadline_s: The longest that one request may take.
        offers_per_minute: Offers that grant something; beyond it delivery waits.
        offers_burst: How many of them may come at once.
        log_bytes: At which size the log of requests begins a new file.
        log_files: How many of these are kept.
    """

    model_config = ConfigDict(extra="forbid")

    socket: str = ""
    deadline_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    offers_per_minute: Annotated[float, Field(gt=0)] = 120_000
    offers_burst: Annotated[int, Field(ge=1)] = 20_000
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
    broker: BrokerSettings = BrokerSettings()
    chunks: ChunkSettings = ChunkSettings()
    timing: TimingSettings = TimingSettings()
    signer: SignerSettings = SignerSettings()
    certificates: CertificateSettings = CertificateSettings()

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
