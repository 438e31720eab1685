"""One thin module a command: parse, call the library, print."""
