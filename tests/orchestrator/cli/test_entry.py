"""The console script answers where its packages are missing."""

import subprocess
import sys

WITHOUT_TYPER = (
    "import sys; sys.modules['typer'] = None; from orchestrator.cli.entry import main; sys.argv = ['flagship', {!r}]; "
    "sys.exit(main())"
)


def test_a_plain_install_names_what_to_install() -> None:
    """No Typer, as on a device: one sentence with the extras, no traceback."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TYPER.format("status")], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("flagship: needs the package typer")
    assert "flagship[publisher]" in done.stderr
    assert "flagship[orchestrator]" in done.stderr
    assert done.stderr.count("\n") == 1


def test_with_its_packages_it_is_the_command_line() -> None:
    """The script's exit code is the command's."""
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.entry", "nope"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert "No such command 'nope'" in done.stderr


def test_an_interrupt_while_modules_load_is_one_sentence() -> None:
    """Ctrl-C in the first tenth of a second is no traceback."""
    interrupted = (
        "import sys, builtins; real = builtins.__import__\n"
        "def stop(name, *rest, **more):\n"
        "    if name == 'orchestrator.cli.main': raise KeyboardInterrupt\n"
        "    return real(name, *rest, **more)\n"
        "from orchestrator.cli.entry import main; builtins.__import__ = stop; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", interrupted], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (130, "flagship: interrupted\n")
