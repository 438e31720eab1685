"""The training side of the data: numpy and memory maps, nothing else."""
