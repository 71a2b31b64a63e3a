"""Is it what was signed, does it fit, and does it run."""
