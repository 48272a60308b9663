"""Named maps for what known products export, one module each."""
