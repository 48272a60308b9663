"""What Mixpanel's HTTP APIs accept and answer, and the one client for them. Knows nothing of Beam."""
