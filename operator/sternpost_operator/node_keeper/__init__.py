"""What Sternpost does to nodes for everybody, and only where it was asked to: cordon, uncordon, drain."""
