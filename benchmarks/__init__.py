"""Measures what the bars are about: CPU per event, events a second, memory, start-up, planning."""
