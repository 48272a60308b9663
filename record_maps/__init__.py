"""How records of another shape become records of Mixpanel's: declared maps, and named ones for known dialects."""
