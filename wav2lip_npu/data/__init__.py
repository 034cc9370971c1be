"""Training samples: clips on disk, which windows are sampled, batches of them."""
