"""A consumer for the official SDK that writes what an application logs into files, to be imported later.

It is loaded into applications, and so imports nothing of the rest of the project.
"""
