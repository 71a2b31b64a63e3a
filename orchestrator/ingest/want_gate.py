"""How many chunks a device may want: what is beyond it costs a look at the message and nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from orchestrator.config_brokers import ChunkSettings
from orchestrator.ingest.buckets import Buckets
from orchestrator.ingest.parse import Checked
from protocol.clock import Clock
from protocol.reports import Want

Dropped = Callable[[str, int], None]
"""Told (reason, how many chunks) of what is left out."""


class WantGate:
    """One bucket of chunks a device."""

    def __init__(self, clock: Clock, settings: ChunkSettings, dropped: Dropped) -> None:
        self._buckets = Buckets(clock)
        self._full, self._period_s = settings.wants_per_device, settings.want_period_s
        self._dropped = dropped

    def admit(self, batch: Sequence[Checked]) -> list[Checked]:
        """The batch with as much of each want as its device may have now; everything else as it is."""
        admitted = []
        for item in batch:
            if not isinstance(item.content, Want):
                admitted.append(item)
                continue
            cids = list(dict.fromkeys(item.content.cids))
            some = self._buckets.take_some(item.device, len(cids), full=self._full, period_s=self._period_s)
            if some < len(cids):
                self._dropped("device_limit", len(cids) - some)
            if some:
                want = item.content.model_copy(update={"cids": cids[:some]})
                admitted.append(replace(item, content=want))
        return admitted
