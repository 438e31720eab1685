"""Vectors of the pieces of two languages in one space, learned from the text of each alone."""
