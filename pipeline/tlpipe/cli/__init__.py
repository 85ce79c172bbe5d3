"""The command line: options become arguments, results become text, errors become exit codes.

Thin: each command makes one library call. Importing this package loads click alone; a command
imports its workflow when it runs. Data go to standard output, talk to standard error.
"""

try:
    from tlpipe.cli.main import main as main
except KeyboardInterrupt:  # Ctrl-C before there is anything to say
    raise SystemExit(130) from None
