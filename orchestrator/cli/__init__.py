"""The command line: one module per noun, clients of the HTTP API; the publisher's commands work offline."""
