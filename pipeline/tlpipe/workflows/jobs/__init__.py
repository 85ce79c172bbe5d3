"""Jobs: a command with all its settings in a file, checked as a whole, run, and recorded.

schema   -> what a job of each command may say, derived from the verbs and their option records
values   -> from the values of TOML to those that options take
mistakes -> what is wrong with a job, all of it, each in a line
records  -> the option records of a job, and what their own checks say
job      -> a job that was read and checked
reading  -> from a job file to a ``Job``
checks   -> what a job names: files that must be there, outputs that can be written
record   -> the run record beside the output
running  -> runs a job and records it
plans    -> what a job would do, and what its output would become
sampling -> a sample of a source, and what the times of its images tell
estimate -> what a job would do and cost, from a measured sample
"""
