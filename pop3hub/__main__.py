"""`python -m pop3hub` is `pop3hub`."""

from pop3hub.cli import main

main()
