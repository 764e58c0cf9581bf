"""Several processes on several machines: an engine that hands out wake-ups, and a relay for what happens meanwhile."""
