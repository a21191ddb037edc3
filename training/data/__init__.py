"""Training data: examples, batches, complementary queries, hard negatives and cached features."""
