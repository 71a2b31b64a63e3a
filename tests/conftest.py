"""What every test shares: logging as it was before."""

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

# The same examples every time, and no deadline: a slow machine is no failure. `make test-all` looks further.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("searching", max_examples=500, deadline=None)
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command that was called in the test's process set up its own logging, on streams that are closed by now."""
    yield
    structlog.reset_defaults()
