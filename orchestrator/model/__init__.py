"""The orchestrator's nouns. Pure: no IO, no clock."""
