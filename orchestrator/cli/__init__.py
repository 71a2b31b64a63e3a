"""The operator's command line: one module per noun; a client of serve's API, except for what holds keys."""
