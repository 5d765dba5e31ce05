"""The storage format: names, tensor tables, shard indexes, manifests. FORMAT.md describes the same in words."""
