"""The command line: `msvae train`, `msvae convert`, ... Nothing heavy is imported before a command runs."""
