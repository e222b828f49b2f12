"""The methods, one a file; the catalogue of their names; free compositions."""
