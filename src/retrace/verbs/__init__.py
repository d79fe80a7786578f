"""One library function per verb of the command line, with the same name and typed arguments.

A verb composes the parts below it (encoders, propagation, training, ...). It reads and writes files and returns what
it made; it prints nothing and exits nowhere. `retrace.cli` parses a command line and calls one of these.
"""
