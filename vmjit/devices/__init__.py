"""Devices that run lanes: one interface, its implementations, and the list of those that can be had."""
