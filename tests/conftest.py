"""Fixtures of all tests: the servers."""

from servers import mariadb, mariadb_server, postgres, postgres_server

__all__ = ["mariadb", "mariadb_server", "postgres", "postgres_server"]
