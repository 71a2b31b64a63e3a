"""What orchestrator, publisher and device must agree on."""
