"""The orchestrator of a fleet, and the publisher that works apart from it."""
