"""The stages of a run, in order: prepare, localize, crop, train, evaluate, report; and predict."""
