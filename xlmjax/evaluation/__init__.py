"""One module an evaluator."""
