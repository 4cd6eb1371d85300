"""The session that pop3hub was first described by, octet for octet where the RFCs allow.

The listing in that text had lost its blank line, so the message is rebuilt here, in another size.
"""

import re

from pop3hub import PopMessage, PopServer, PopUser
from pop3hub.peer import Peer
from pop3hub.testing.dialogue import Dialogue

HEADER = b"""\
X-Mailer: My Hands\r
Subject: Test message\r
From: test@test.com\r
Date: Mon, 21 Mar 2022 09:55:42 +0000\r
To: luke@test.com\r
Message-ID: <asdadada@awa.com>\r
Content-Type: text/plain\r
\r
"""
MESSAGE = HEADER + b"Hello world!\r\n.\r\n.\r\n"


async def test_the_session_of_the_first_description():
    deleted = []

    async def get_user(user, connection):
        return PopUser("luke", "hello", "secret", {"_id": 1}) if user == "luke" else None

    async def receive_messages(connection):
        return [PopMessage(str(uid), len(MESSAGE), MESSAGE) for uid in range(9)]

    async def delete_messages(connection, messages):
        deleted.extend(message.uid for message in messages)

    server = PopServer(
        get_user=get_user,
        compare_password=lambda raw, hash: raw == hash,
        is_in_use=lambda connection: False,
        receive_messages=receive_messages,
        delete_messages=delete_messages,
        default_language="nl",
        name="Luke-POP3",
        apop=True,
        allow_plaintext=True,
        listen=(),
    )
    async with server, Dialogue(server, peer=Peer("192.168.99.30", 64212)) as dialogue:
        # The stamp was the time in milliseconds alone, which two greetings can share (RFC 1939 s7).
        assert re.fullmatch(
            rb"\+OK Luke-POP3 tot uw dienst, IPv4 192\.168\.99\.30:64212 "
            rb"<[0-9a-f]+\.[0-9a-f]+@Luke-POP3>\r\n",
            dialogue.greeting,
        )
        capabilities = (await dialogue.say("capa")).split(b"\r\n")
        assert b"+OK mogelijkheden volgen." == capabilities[0]
        assert b"LOGIN-DELAY 0" == capabilities[2]
        # UTF8 tells that names and passwords may be UTF-8 too (RFC 6856 s2).
        assert [b"USER", b"UIDL", b"UTF8 USER", b"EXPIRE NEVER", b"LANG"] == capabilities[3:8]
        # The tag comes first in the answer (RFC 6856 s3).
        assert b"+OK en changing language to 'en'.\r\n" == await dialogue.say("lang en")
        assert b"+OK user 'luke' accepted, proceed with PASS\r\n" == await dialogue.say("user luke")
        assert b"+OK pass accepted, welcome 'luke'.\r\n" == await dialogue.say("pass hello")
        assert (
            b"+OK mailbox listing follows.\r\n"
            b"1 0\r\n2 1\r\n3 2\r\n4 3\r\n5 4\r\n6 5\r\n7 6\r\n8 7\r\n9 8\r\n.\r\n"
        ) == await dialogue.say("uidl")
        # Every line that begins with a dot is given one more (RFC 1939 s3).
        assert (
            b"+OK %d octets\r\n" % len(MESSAGE) + HEADER + b"Hello world!\r\n..\r\n..\r\n.\r\n"
        ) == await dialogue.say("retr 9")
        assert b"+OK top follows.\r\n" + HEADER + b".\r\n" == await dialogue.say("top 9 0")
        # The number is the client's own: the first description told one that was too low.
        assert b"+OK message 9 deleted.\r\n" == await dialogue.say("dele 9")
        assert [] == deleted
        assert b"+OK Luke-POP3 signing off.\r\n" == await dialogue.say("quit")
        assert ["8"] == deleted
