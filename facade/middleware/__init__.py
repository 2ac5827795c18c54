"""What every request passes through: its id, its form of errors, and who may call."""
