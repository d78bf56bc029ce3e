"""The command line. A command is a module here; nothing is imported before its command needs it."""
