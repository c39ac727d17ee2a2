"""NequIP's own fixtures, which its test mixins expect."""

from nequip.utils.unittests.conftest import *  # noqa: F403
