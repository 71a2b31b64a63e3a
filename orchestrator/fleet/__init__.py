"""The fleet: who belongs to it, in which groups, under which certificates."""
