"""Sessions as the facade knows them: from the daemon's watch stream, and through its methods."""
