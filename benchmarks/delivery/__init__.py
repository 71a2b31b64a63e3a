"""What delivery costs and how quickly it is, beside the best that a user would pick instead; ``make bench-delivery``."""
