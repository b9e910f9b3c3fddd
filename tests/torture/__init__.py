"""Faults and attacks, one row of the catalogue each, with the figure that came of it: `make torture`."""
