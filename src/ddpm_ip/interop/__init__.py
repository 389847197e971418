"""Networks from elsewhere, and for elsewhere: a file a foreign format."""
