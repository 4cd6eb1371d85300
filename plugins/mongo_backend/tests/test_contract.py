"""The suite of pop3hub itself that every backend passes, on a real mongod."""

import pytest

from pop3hub.testing.contract import BackendContract
from pop3hub_mongo import MongoBackend

pytestmark = pytest.mark.mongo


class TestMongoBackend(BackendContract):
    @pytest.fixture
    def backend(self):
        return MongoBackend()

    @pytest.fixture
    def options(self, options):
        return options
