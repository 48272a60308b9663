"""How records of another shape become Mixpanel's: declared maps, and named ones for known dialects."""
