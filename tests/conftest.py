"""What every test shares: logging as it was before."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command that was called in the test's process set up its own logging, on streams that are closed by now."""
    yield
    structlog.reset_defaults()
