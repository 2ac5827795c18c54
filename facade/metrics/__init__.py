"""What the facade tells Prometheus."""
