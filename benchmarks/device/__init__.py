"""What the agent costs the device that it runs on."""
