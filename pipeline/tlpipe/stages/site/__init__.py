"""Site: a static folder that runs a classifier in the browser.

Owns the page (``static/``: HTML, CSS and JavaScript, shipped as they stand), which files of the
package onnxruntime-web it needs, and how the folder appears whole. Takes a classifier, what the
page must know of it, and a runtime; gives a folder. Imports ``errors`` and ``files``.

runtime -> the files of onnxruntime-web, from its archive or an unpacked folder
folder  -> what the folder holds, and how it replaces an earlier one
"""

from tlpipe.stages.site.folder import MODEL, SiteSummary, check_site, write_site
from tlpipe.stages.site.runtime import PUBLISHED, Published, Runtime, read_runtime

__all__ = [
    "MODEL",
    "PUBLISHED",
    "Published",
    "Runtime",
    "SiteSummary",
    "check_site",
    "read_runtime",
    "write_site",
]
