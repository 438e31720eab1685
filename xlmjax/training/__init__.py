"""State, step, optimizer, checkpoints and what is shown of them."""
