"""The steps of Afterclick: each folder is one step, `common` is what they share."""
