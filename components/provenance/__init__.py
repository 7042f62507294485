"""Images that say that a model made them: IPTC's digital source type, and a signed C2PA manifest."""
