"""``broker-config/``: the configuration of a broker that somebody else runs, as files. Pure.

``python -m orchestrator.delivery.sample_config [FLEET [DIRECTORY]]`` prints or writes it for a fleet.
"""

import sys
from pathlib import Path, PurePosixPath

from orchestrator.delivery.broker_config import BrokerPlan, broker_files

CERTIFICATES = PurePosixPath("/etc/mosquitto/certs")
DIRECTORY = PurePosixPath("/etc/mosquitto/flagship")


def sample_files(fleet: str = "fleet") -> dict[str, str]:
    """Text by file name, for a machine where mosquitto is a service of its own."""
    return broker_files(
        BrokerPlan(
            fleet=fleet,
            directory=DIRECTORY,
            devices_ca=CERTIFICATES / "devices-ca.pem",
            devices_crl=CERTIFICATES / "devices-ca.crl",
            services_ca=CERTIFICATES / "services-ca.pem",
            services_crl=CERTIFICATES / "services-ca.crl",
            certificate=CERTIFICATES / "broker.pem",
            key=CERTIFICATES / "broker.key",
            device_port=8883,
            service_port=8884,
            device_host="",
            service_host="127.0.0.1",
            data=PurePosixPath("/var/lib/mosquitto"),
            claims_ca=CERTIFICATES / "claims-ca.pem",
            enrol_port=8885,
        )
    )


def main(arguments: list[str]) -> None:
    """Print the files, or write them into a directory."""
    fleet, directory = [*arguments, *["fleet", ""][len(arguments) :]][:2]
    for name, text in sample_files(fleet).items():
        if directory:
            Path(directory, name).write_text(text)
        else:
            sys.stdout.write(f"--- {name}\n{text}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
