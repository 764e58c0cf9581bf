"""What an agent knows."""
