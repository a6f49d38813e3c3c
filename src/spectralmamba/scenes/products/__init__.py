"""Products as downloaded: one reader a sensor, and what they share."""
