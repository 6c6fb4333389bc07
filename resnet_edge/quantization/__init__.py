"""From a float graph and images to integers: recipes, calibration, scales, rounding, exact execution."""
