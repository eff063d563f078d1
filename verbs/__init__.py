"""The verbs of the command line: parsing, progress and printing. Each imports what it needs when it runs."""
