"""From the film table to arrays and splits."""
