"""Images of a list of URLs, asked for politely and safely, and a reason for every one that does not come."""
