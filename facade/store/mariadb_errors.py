"""Owns what MariaDB's errors mean to the facade: which are a passing state, and what an operator does about the others.

Numbers are MariaDB's error codes (https://mariadb.com/kb/en/mariadb-error-codes/); those from 2000 are the client's.
"""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from facade.store.failures import Unusable
from medforged.contract.exitcodes import ExitCode

__all__ = ["is_state", "why_unusable"]

_STATES = frozenset(
    {
        1021,  # ER_DISK_FULL
        1040,  # ER_CON_COUNT_ERROR
        1044,  # ER_DBACCESS_DENIED_ERROR: found by a connection that is made anew
        1045,  # ER_ACCESS_DENIED_ERROR
        1049,  # ER_BAD_DB_ERROR
        1053,  # ER_SERVER_SHUTDOWN
        1114,  # ER_RECORD_FILE_FULL
        1129,  # ER_HOST_IS_BLOCKED
        1130,  # ER_HOST_NOT_PRIVILEGED
        1203,  # ER_TOO_MANY_USER_CONNECTIONS
        1205,  # ER_LOCK_WAIT_TIMEOUT
        1213,  # ER_LOCK_DEADLOCK
        1226,  # ER_USER_LIMIT_REACHED
        1290,  # ER_OPTION_PREVENTS_STATEMENT: the server is read-only
        1317,  # ER_QUERY_INTERRUPTED
        1412,  # ER_TABLE_DEF_CHANGED
        1698,  # ER_ACCESS_DENIED_NO_PASSWORD_ERROR
        1836,  # ER_READ_ONLY_MODE
        1927,  # ER_CONNECTION_KILLED
        1969,  # ER_STATEMENT_TIMEOUT
        2002,  # CR_CONNECTION_ERROR
        2003,  # CR_CONN_HOST_ERROR
        2006,  # CR_SERVER_GONE_ERROR
        2013,  # CR_SERVER_LOST
        2055,  # CR_SERVER_LOST_EXTENDED
    }
)


def is_state(error: Exception) -> bool:
    """Whether the server, the way to it or another transaction is the cause, so that the same may work later."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or _code(error) in _STATES
    return isinstance(error, PoolTimeout)


def why_unusable(error: Exception, user: str, database: str) -> Unusable:
    """One sentence for an error of connecting or migrating."""
    code = _code(error)
    match code:
        case 1045 | 1698:
            return Unusable(
                f"access is denied to {user}",
                "correct the user in database.url, the password in database.password_file, or the server's grants",
                ExitCode.NO_PERMISSION,
            )
        case 1044 | 1142 | 1143 | 1227:
            return Unusable(
                f"{user} may not do this there ({_message(error)})",
                f"GRANT ALL PRIVILEGES ON `{database}`.* TO that user",
                ExitCode.NO_PERMISSION,
            )
        case 1049:
            return Unusable("the server has no such database", f"CREATE DATABASE `{database}` there")
        case 1193:
            return Unusable(
                f"the server is not MariaDB, or too old a one ({_message(error)})", "use 10.6 or newer, or SQLite"
            )
        case 1129 | 1130:
            return Unusable(
                f"the server refuses this host ({_message(error)})",
                "grant the user access from it",
                ExitCode.NO_PERMISSION,
            )
        case 1040 | 1203 | 1226:
            return Unusable(
                f"the server has too many connections ({_message(error)})",
                "raise its max_connections or lower database.connections",
                ExitCode.TEMPORARY,
            )
        case 2002 | 2003 | 2005 | 2006 | 2013:
            return Unusable(
                f"the server does not answer ({_message(error)})",
                "start it, or correct host, port or unix_socket in database.url",
                ExitCode.UNAVAILABLE,
            )
    return Unusable(_message(error), "see the server's log", ExitCode.UNAVAILABLE)


def _code(error: Exception) -> int:
    arguments = error.orig.args if isinstance(error, DBAPIError) and error.orig is not None else ()
    return arguments[0] if arguments and isinstance(arguments[0], int) else 0


def _message(error: Exception) -> str:
    arguments = error.orig.args if isinstance(error, DBAPIError) and error.orig is not None else ()
    return " ".join(str(arguments[-1] if arguments else error).split())
