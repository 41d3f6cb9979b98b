"""The film table: labels, splits, and the grammar of names that tells patients."""
