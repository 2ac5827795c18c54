"""The wire contract of the daemon's socket: types only. Imports nothing but msgspec and the standard library."""
