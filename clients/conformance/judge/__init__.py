"""The judge of the conformance suite: runs scenarios against the drivers of clients, and says which cells are green."""
