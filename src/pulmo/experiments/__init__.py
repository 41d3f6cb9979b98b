"""DVC's experiments: listed, queued, compared, repaired, searched, promoted."""
