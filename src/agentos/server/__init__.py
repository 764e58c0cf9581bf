"""Agents over HTTP: Letta's API, OpenAI's, and what neither has. It serves what the kernel does and decides nothing."""
