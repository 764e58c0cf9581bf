"""Agents' memory for any MCP client: its tools and resources, over stdio and inside the server."""
