"""The HTTP API: the one door for release, device, group and rollout verbs."""
