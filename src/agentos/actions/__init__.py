"""What each action of the loop does: every change is saved before the next action is computed."""
