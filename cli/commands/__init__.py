"""The commands of medforgectl, one module per noun; each only translates between the command line and the socket."""
