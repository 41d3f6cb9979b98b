"""From the film table to splits, and to one array of films."""
