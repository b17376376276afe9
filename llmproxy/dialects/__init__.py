"""Wire formats of clients, one a file: parse a request into a Call, render a reply. Pure."""
