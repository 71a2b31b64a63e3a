"""The demo: a fleet on this machine, two rollouts, five mishaps. Uses public faces only."""
