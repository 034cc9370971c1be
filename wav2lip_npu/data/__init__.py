"""Training samples: clips on disk, which windows are drawn, batches of them."""
