"""Configs made of what other systems export: one module for each of them."""
