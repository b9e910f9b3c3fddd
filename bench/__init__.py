"""What relay costs, measured."""
