"""One region of a program beside all that it is translated to, linked by guest instruction (`vmjit explain`)."""
