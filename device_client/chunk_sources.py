"""Where this device's chunks come from, in the order of preference, out of its settings."""

from collections.abc import Callable
from random import Random

from device_client.config import DeviceSettings
from device_client.download.mqtt_source import MqttSource
from device_client.download.source_choice import ChoiceLimits
from device_client.download.source_set import SourceSet, Supplier
from protocol.clock import Clock
from protocol.errors import ErrorCode


def make_sources(
    settings: DeviceSettings,
    broker: MqttSource,
    leave: Callable[[str], bool],
    refused: Callable[[ErrorCode, str], None],
    clock: Clock,
    random: Random,
) -> SourceSet:
    """Make the set.

    Args:
        broker: The chunk topics of the agent's connection.
        leave: Ends that connection, told why, where there is another broker to go to; says whether there is.
        refused: Is told of a source that is too slow.
    """
    download = settings.download
    retained = Supplier(
        broker,
        download.min_rate_bytes_s,
        received=lambda: broker.received_bytes,
        interrupt=broker.interrupt,
        leave=leave,
    )
    limits = ChoiceLimits(download.return_after_s, settings.timing.chunk_timeout_s)
    return SourceSet([retained], limits, download.slow_window_s, clock, random, refused)
