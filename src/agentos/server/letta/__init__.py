"""The Letta v1 REST API, as `letta-client` speaks it."""
