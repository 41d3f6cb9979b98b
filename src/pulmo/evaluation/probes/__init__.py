"""Probes: measurements of a model that need the images themselves."""
