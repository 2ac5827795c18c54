"""Frozen values, the session state machine and the errors of the domain; standard library only."""
