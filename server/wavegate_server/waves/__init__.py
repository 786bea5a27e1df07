"""What is said upstream, without I/O: no asyncio, no socket, no clock.

A protocol object lives as long as one upstream connection. It is handed commands, received messages and the
time; it returns messages to write and events that say what the received ones meant.
"""
