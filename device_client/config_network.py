"""Sections of ``device.toml`` that say where chunks, and media, come from, and what that may cost."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from protocol.enrolment import HttpsUrl

MAX_SOURCES = 16
InterfaceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:@-]{0,15}$")]
InterfacePattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:@*?-]{1,32}$")]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Section(BaseModel):
    """A table of ``device.toml``: no word in it that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceSection(Section):
    """One place that chunks come from, in the order of preference.

    Attributes:
        kind: ``mqtt``: the broker of the agent's connection. ``https``: a mirror. ``directory``: a medium.
        url: Base address of a mirror; chunks are at ``{url}/chunks/{cid}``.
        path: Where a medium appears; chunks are at ``{path}/chunks/{cid}``.
        ca: By whom a mirror's certificate is: the fleet's own CA, or any that this system trusts.
        client_certificate: Whether a mirror is shown this device's certificate.
        allow_metered: Whether it may be used over an interface that ``[network]`` calls metered.
        interface: The only interface that a mirror is asked over; empty: as the system routes.
        min_rate_bytes_s: Slower than this, it is left for the next one; 0 means never.
    """

    kind: Literal["mqtt", "https", "directory"]
    url: HttpsUrl | None = None
    path: Path | None = None
    ca: Literal["fleet", "system"] = "fleet"
    client_certificate: bool = False
    allow_metered: bool = True
    interface: InterfaceName = ""
    min_rate_bytes_s: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if (self.kind == "https") != (self.url is not None):
            raise ValueError(f"a source of kind {self.kind} {'needs an' if self.kind == 'https' else 'has no'} url")
        if (self.kind == "directory") != (self.path is not None):
            raise ValueError(f"a source of kind {self.kind} {'needs a' if self.kind == 'directory' else 'has no'} path")
        if self.path is not None and not self.path.is_absolute():
            raise ValueError("path: expected an absolute one, such as /media/updates")
        if self.kind != "https" and (self.interface or self.client_certificate or self.ca != "fleet"):
            raise ValueError(f"interface, ca and client_certificate are for kind https, not for {self.kind}")
        return self


def _each_once(sources: tuple[SourceSection, ...]) -> tuple[SourceSection, ...]:
    places = [(one.kind, one.url or one.path) for one in sources]
    if len(set(places)) < len(places):
        raise ValueError("two sources are the same; name each once")
    return sources


Sources = Annotated[tuple[SourceSection, ...], Field(max_length=MAX_SOURCES), AfterValidator(_each_once)]


class NetworkSection(Section):
    """What the device's links cost.

    Attributes:
        metered_interfaces: Names or patterns such as ``wwan*``; none means that nothing is metered.
        metered_from: Who else says so: ``interfaces``: nobody; ``networkmanager``: NetworkManager, asked now and then.
        metered_bytes_per_day: Bytes of chunks that may come over them in one UTC day; 0 means no limit.
        proc: The kernel's view of routes.
    """

    metered_interfaces: Annotated[tuple[InterfacePattern, ...], Field(max_length=32)] = ()
    metered_from: Literal["interfaces", "networkmanager"] = "interfaces"
    metered_bytes_per_day: Annotated[int, Field(ge=0, le=2**50)] = 0
    proc: Path = Path("/proc")


class MediaSection(Section):
    """Where media are looked for, such as ``/media/*``; nowhere by itself.

    Attributes:
        directories: Absolute paths of folders; ``*`` and ``?`` stand for what a mount is called.
        interval_s: How often they are looked at.
    """

    directories: Annotated[
        tuple[Annotated[str, StringConstraints(pattern=r"^/", max_length=200)], ...], Field(max_length=8)
    ] = ()
    interval_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10
