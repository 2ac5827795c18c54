"""How often something may be tried: sliding windows, counted in a table of fixed size that all workers share."""
