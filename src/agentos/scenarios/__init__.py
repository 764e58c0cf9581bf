"""Scripted persona tests: scenarios of what a user says, and of what the agent must then know."""
