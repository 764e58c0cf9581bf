"""Tools of MCP servers: what reaches them, and what of them an agent has."""
