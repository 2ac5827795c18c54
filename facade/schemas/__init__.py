"""The JSON bodies of the public API, types only, and how a request's body becomes one."""
