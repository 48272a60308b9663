"""The Beam steps of a backfill, one composite PTransform each, and the plain rules they wire."""
