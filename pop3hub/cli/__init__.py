"""The program `pop3hub`: options, configuration, commands, workers, signals and the log.

May import everything; nothing imports it.
"""
