"""One file a policy; ``catalogue.POLICIES`` finds them by themselves."""
