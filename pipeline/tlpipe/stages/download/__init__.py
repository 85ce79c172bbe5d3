"""Download: obtains a file over HTTP or HTTPS, or from a path, verified and resumable.

The only package that opens a connection, and the only one that imports filelock. Takes addresses
and what is expected, gives a file that is whole and right or not there. Imports ``errors``,
``types``, ``files`` and ``version``.

Of a file ``name`` three more may stand beside it, all hidden: ``.name.part`` holds what has arrived
so far and survives any interruption, ``.name.part.json`` says from where that came, and
``.name.lock`` (empty, left in place) lets one process at a time fetch the file.

It is built on the standard library's urllib, which honours the proxies of the environment: pooch,
``torch.hub`` and ``urllib.request.urlretrieve`` verify or cache but start from the first byte after
every interruption, and huggingface_hub resumes but knows one site.
"""

from tlpipe.stages.download.fetch import OFFLINE_HINT as OFFLINE_HINT
from tlpipe.stages.download.fetch import download as download
from tlpipe.stages.download.fetch import fetch_file as fetch_file
from tlpipe.stages.download.part import Expected as Expected
