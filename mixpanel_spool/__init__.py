"""A consumer for the official SDK that writes what an application logs into files, to be imported later."""
