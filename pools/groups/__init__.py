"""Groups of users and of items, each with a pool of its own."""
