"""A local Mixpanel: it answers as Mixpanel does, keeps what it was sent, can tell what was lost."""
