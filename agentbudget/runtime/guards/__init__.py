"""Guards around what other people's code calls: clients of providers, and any callable."""
