"""relay: takes webhook events in, proves who sent them, and carries them to whoever must react."""

__version__ = "1.0.0"
