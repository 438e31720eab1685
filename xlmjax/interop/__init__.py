"""Checkpoints of others: Hugging Face XLM and XLM-R, and the files of the original XLM."""
