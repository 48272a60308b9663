"""A local Mixpanel: it answers as Mixpanel does, keeps what it was sent, and can tell afterwards whether anything was lost."""
