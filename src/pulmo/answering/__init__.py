"""A model package at work: one film in, one answer out."""
