"""What of this machine and of a bundle can be used: looked at, and tried."""
