"""Networks from elsewhere, and for elsewhere: a file a foreign format; ``find.py`` knows all of them."""
