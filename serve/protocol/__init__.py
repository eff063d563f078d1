"""What every server asks of a request and answers it with, whatever carries it."""
