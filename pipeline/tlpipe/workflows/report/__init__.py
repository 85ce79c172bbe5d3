"""Report: gathers what a page shows of a feature file and a classifier, and writes it.

options      -> what may be asked for
judgement    -> labels, guesses and figures of all rows: the record, and how it is made
by_heads     -> the same by heads that are trained for the report
by_classifier, by_labels -> the same by a classifier, of one label per image or of several
findings     -> the lists: mistakes, suspects, near-duplicates, leaks
sample       -> which images the page holds
pictures     -> thumbnails, from the source
figures      -> headline numbers with a sentence each
provenance   -> what was made of what
making       -> all of it as one record; the public API
comparing    -> the same for several feature files
"""
