"""The command line: one verb per file. Parse, call one function of `retrace.verbs`, print what it returned."""
