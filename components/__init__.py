"""What the pipelines are made of: a folder for each step, and below the steps what they share."""
