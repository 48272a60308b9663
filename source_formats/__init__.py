"""What input files hold, beside NDJSON: each format streamed into records. Knows nothing of Beam."""
