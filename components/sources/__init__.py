"""Where logs come from: files and queries as companies have them, in the terms of the log contract."""
