"""MongoDB as the mail store of pop3hub: many nodes, one set of mailboxes."""

from pop3hub_mongo.accounts import Account, MongoUser
from pop3hub_mongo.backend import MongoBackend
from pop3hub_mongo.messages import MongoMessage
from pop3hub_mongo.schema import MongoSchema

__all__ = ["Account", "MongoBackend", "MongoMessage", "MongoSchema", "MongoUser"]
