"""Writes down which chunks devices verified and kept, so that none can be fetched for nothing unseen."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping

import pytest

from device_client.download.store import ArtifactStore, Refusal


@contextlib.contextmanager
def verified_chunks() -> Iterator[Counter[tuple[str, str]]]:
    """How often each (device's folder, chunk) was verified and kept, by all agents of this process."""
    found: Counter[tuple[str, str]] = Counter()
    write = ArtifactStore.write

    def noted(store: ArtifactStore, chunks: Mapping[str, bytes]) -> list[Refusal]:
        refusals = write(store, chunks)
        useless = {refusal.cid for refusal in refusals}
        found.update((store._stage.path.parts[-3], cid) for cid in chunks if cid not in useless)
        return refusals

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ArtifactStore, "write", noted)
        yield found
