# shellcheck shell=sh
# Debian's /etc/profile has just replaced PATH; login shells (tmux, `bash -l`) find what `pip install` put on the workspace too.
export PATH="$HOME/.local/bin:$PATH"
