"""How long the campaigns are."""

import os

import pytest


@pytest.fixture(scope="session")
def length():
    """Return how many inputs or kills a campaign has, unless the user says otherwise."""

    def number(usual: int) -> int:
        return int(os.environ.get("EQPLUGIN_CAMPAIGN", usual))

    return number
