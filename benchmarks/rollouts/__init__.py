"""What rollouts cost: each module is one question."""
