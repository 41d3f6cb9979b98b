"""The two labels, the subtypes and the splits, and the folder names that stand for them."""

LABELS = ("NORMAL", "PNEUMONIA")
SUBTYPES = ("normal", "bacterial", "viral", "unknown")
SPLITS = ("train", "val", "test")
CLASS_NAMES = {"normal": "NORMAL", "pneumonia": "PNEUMONIA"}  # folders in small letters, and what they mean
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
