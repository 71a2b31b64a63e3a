"""The update machine of a device: a literal table, its journal, and the runner that drives it."""
