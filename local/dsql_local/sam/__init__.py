"""Running a function as Lambda does: SAM's command line, the Runtime Interface Emulator, Docker."""
