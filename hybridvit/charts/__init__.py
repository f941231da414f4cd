"""Charts and tables of measurements, as pages and pictures."""
