"""Workspaces as ZFS datasets: through libzfs_core where the kernel has OpenZFS, else through the `zfs` command.

`store` has what both share and knows no technology; `commands` and `core` are the two ways to do it,
`messages` and `listings` read what ZFS says, `mounts` is the kernel's mount table, `detect` chooses.
"""
