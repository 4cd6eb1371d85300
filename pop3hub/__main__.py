"""`python -m pop3hub` is `pop3hub`."""

from pop3hub.cli.main import main

main()
