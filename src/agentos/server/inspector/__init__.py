"""The Memory Inspector: pages on what agents know, where it came from, and how to put it right.

Its data are `agentos.values`, its changes `agentos.curate` and `agentos.talk`, as everywhere
else; a page only shows them.
"""
