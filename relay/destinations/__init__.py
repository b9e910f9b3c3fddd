"""Services that relay knows how to call, one module each; `relay.preset` is their contract."""
