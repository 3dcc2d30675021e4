"""Runs functions as Lambda does: SAM CLI, Runtime Interface Emulator, Docker."""
