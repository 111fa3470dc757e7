"""Data: reading, aligning, drawing, storing and feeding face pictures."""
