"""One module per type of sender."""
