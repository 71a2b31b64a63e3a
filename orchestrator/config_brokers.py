"""Settings of brokers, and of the chunks that stand on them; parts of ``config.Settings``."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from protocol.identifiers import IdText

Seconds = Annotated[float, Field(gt=0)]
Port = Annotated[int, Field(gt=0, lt=65536)]


class BrokerSettings(BaseModel):
    """One broker. Managed: serve starts mosquitto itself.

    Attributes:
        certificate, key, ca: Files, relative to the home, of the orchestrator's sessions on a broker that somebody
            else runs under a CA of their own; "" are the home's, from ``tls/`` and ``ca/``.
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
    certificate: str = ""
    key: str = ""
    ca: str = ""

    @model_validator(mode="after")
    def _certificate_and_key(self) -> "BrokerSettings":
        if bool(self.certificate) != bool(self.key):
            raise ValueError(f"broker {self.name}: certificate and key belong together; name both or none")
        return self


class FurtherBroker(BrokerSettings):
    """A broker beside the first one: it runs already."""

    name: IdText
    managed: Literal[False] = False


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
