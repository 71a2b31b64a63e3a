"""Whether this device is ready: one module per question, and how answers are put together."""
