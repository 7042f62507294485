"""What a published dataset says of itself: a card for people, and Croissant metadata for programs."""
