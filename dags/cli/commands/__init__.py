"""The groups of commands: options and help texts. What a command does and prints is in dags/cli/."""
