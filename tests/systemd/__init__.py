"""Tests under a real systemd."""
