"""The report page: what it shows, in words, tables, pictures and figures."""
