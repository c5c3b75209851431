"""The runaway lab: how much does an agent overspend under policy X when it goes wrong in way Y? See README.md."""
