# shellcheck shell=bash
# Finds the distribution's own Python, installing it where a minimal system has none. Sets PYTHON.
#
# Not whatever `python3` comes first in PATH: the virtual environment has to outlive a developer's own builds, and
# the distribution's libzfs_core belongs to the distribution's Python.

PYTHON=/usr/bin/python3

ensure_python() {
  if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    if [[ ! -x $PYTHON && $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
      echo "up: installing python3" >&2
      apt-get update -qq >/dev/null
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3 >/dev/null
    fi
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
      echo "cannot go on: Python 3.11 or newer is needed at $PYTHON; use Debian 12 or newer, or Ubuntu 24.04" >&2
      exit 69
    }
  fi
}
