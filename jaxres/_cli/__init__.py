"""What stands behind the command line: configuration files and commands."""
