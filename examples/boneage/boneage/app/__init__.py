"""A local web page that reads the age of one radiograph at a time."""
