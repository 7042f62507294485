"""What became of single records: their way through the outputs, and how it differs between two runs."""
