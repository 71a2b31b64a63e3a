"""What delivery costs and how quickly it is, beside what a user would pick instead: ``make bench-delivery``."""
