"""The commands of `sternpost-checkpoint`, a file each."""
