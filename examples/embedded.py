"""A POP3 server over your own data, inside your own program."""

import asyncio
import hmac

from pop3hub import PopMessage, PopServer, PopUser

USERS = {"luke": "hello"}
MAIL = {"a1": ("luke", b"Subject: Test message\r\n\r\nHello world!\r\n")}


class StoredMessage(PopMessage):
    async def load_contents(self):  # called for RETR and TOP; may also return an async iterator
        return MAIL[self.uid][1]


async def get_user(name):
    return PopUser(name, USERS[name]) if name in USERS else None


def compare_password(raw, stored):
    return hmac.compare_digest(raw.encode(), stored.encode())


async def receive_messages(session, user):
    return [StoredMessage(uid, len(m)) for uid, (owner, m) in MAIL.items() if owner == user.name]


async def delete_messages(session, messages):
    for message in messages:
        del MAIL[message.uid]


async def main():
    server = PopServer(
        get_user=get_user,
        compare_password=compare_password,
        receive_messages=receive_messages,
        delete_messages=delete_messages,
        listen="pop3://127.0.0.1:1110",
    )
    async with server:
        print("Try: curl pop3://luke:hello@127.0.0.1:1110/1")
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
