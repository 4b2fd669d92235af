"""A refined table as a page with figures."""
