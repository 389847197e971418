"""Published results, made again: recipes of a sweep, and what came out beside what was published."""
