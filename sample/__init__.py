"""Events to try a run with, and the program that makes them."""
