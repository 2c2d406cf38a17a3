"""What an example is, offline and online alike: the log contract, the feature list, how features are made."""
