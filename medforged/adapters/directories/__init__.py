"""Workspaces as plain directories, for hosts without ZFS: no quotas, and snapshots are full copies."""
