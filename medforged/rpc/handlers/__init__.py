"""One module per noun: translate parameters and results, and call a service; nothing else."""
