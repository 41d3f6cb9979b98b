"""Numbers from arrays, each with its interval and its n, and the one decision that validation locks."""
