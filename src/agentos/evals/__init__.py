"""Memory evaluation on public data files: each suite goes through the calls that a user has."""
