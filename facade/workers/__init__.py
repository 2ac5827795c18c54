"""Several processes behind one listening socket: a supervisor, and the workers that it forks."""
