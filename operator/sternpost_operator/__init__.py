"""The Sternpost operator: TrainingJob resources, recovery decisions, and the clusters they act on."""
