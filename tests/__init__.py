"""Tests: a file mirrors a module, and real servers stand on loopback."""
