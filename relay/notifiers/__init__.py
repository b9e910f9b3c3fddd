"""Ways of telling people, one module each; `relay.notifier` is their contract."""
