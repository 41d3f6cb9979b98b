"""Networks, their weights, the device they run on, augmentation and scoring."""
