"""What ties an agent to systemd: its units, the word to the service manager, the watch over a version on trial."""
