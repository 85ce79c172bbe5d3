"""Shows the options of a command in sections, in its help."""

from __future__ import annotations

import click

_SECTIONS = {
    "A network without a card": ("preprocess", "layer", "pooling", "input", "image_size"),
    "The run": (
        "device",
        "precision",
        "runtime",
        "min_agreement",
        "decode",
        "batch_size",
        "threads",
        "profile",
    ),
    "The head": (
        "head_kind",
        "class_weight",
        "multi_label",
        "label_separator",
        "false_alarms",
        "coverage",
        "memory_bytes",
        "seed",
    ),
    "The images": ("allow_outside", "max_rejects", "rehash", "max_gone"),
}
"""Names of parameters by section, in order; all others come first, as they were stated."""


class Sectioned(click.Command):
    """A command whose help shows its options in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section."""
        section_of = {name: title for title, names in _SECTIONS.items() for name in names}
        order = {name: i for i, name in enumerate(section_of)}
        records: dict[str, list[tuple[int, tuple[str, str]]]] = {
            "Options": [],
            **{t: [] for t in _SECTIONS},
        }
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                name = param.name or ""
                records[section_of.get(name, "Options")].append((order.get(name, -1), record))
        for title, rows in records.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl([record for _, record in sorted(rows, key=lambda r: r[0])])
