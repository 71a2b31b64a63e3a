"""The console script ``flagship``. A plain install is a device and lacks what commands are made of: it says so."""

import sys

INTERRUPTED = 130


def main() -> int:
    """Run one command; returns its exit code."""
    try:
        from orchestrator.cli.main import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"orchestrator", "protocol"}:
            raise
        sys.stderr.write(
            f"flagship: needs the package {error.name}, which a device's installation lacks; install "
            "flagship[publisher] where releases are made, flagship[orchestrator] where the fleet is run\n"
        )
        return 1
    except KeyboardInterrupt:  # while modules load, which a person may find too long already
        sys.stderr.write("flagship: interrupted\n")
        return INTERRUPTED
    return run()


if __name__ == "__main__":
    sys.exit(main())
