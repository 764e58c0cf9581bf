"""The session database."""
