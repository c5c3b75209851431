"""The runtime: owners, hosts, sessions and steps. See README.md; public names are loaded by ``agentbudget`` itself."""
