"""The offline side: packs, seals and signs releases with keys that the orchestrator never sees."""
