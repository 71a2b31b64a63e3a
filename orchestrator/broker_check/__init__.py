"""Is a broker fit to carry a fleet's content? Probed, measured, judged; nothing of it is left on the broker."""
