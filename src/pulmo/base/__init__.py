"""Plumbing without a domain: whole files, paths, validated params, git, processes."""
