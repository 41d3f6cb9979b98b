"""The whole evaluation: the report, the probes beside it, and films from elsewhere."""
