"""The catalog: loading, pricing, usage and estimates."""
