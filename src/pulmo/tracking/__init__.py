"""MLflow behind one door: where runs are stored, what they hold, and which run a stage belongs to."""
