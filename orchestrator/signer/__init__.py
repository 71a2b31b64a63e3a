"""The orchestrator's online keys, and the marks below which nothing is ever signed again."""
