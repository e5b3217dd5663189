"""The policies compiled, once a session."""

from typing import Any

import pytest

from krait import sched_worlds


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The host library."""
    return sched_worlds.build(tmp_path_factory.mktemp("sched"))
